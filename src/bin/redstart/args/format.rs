//! Formats of messages on the standard input and output.

use clap::ValueEnum;
use redstart::container::ContainerBuilder;
use redstart::foreign;

/// A format of whole messages.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Format {
    /// A CloudEvent 1.0 on each line, as JSON in structured mode
    #[value(name = "cloudevents")]
    CloudEvents,
}

/// A format of foreign entries.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum ForeignFormat {
    Debezium,
    CloudEvents,
    Plain(String),
}

impl ForeignFormat {
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        match (text, text.strip_prefix("plain:")) {
            ("debezium", _) => Ok(Self::Debezium),
            ("cloudevents", _) => Ok(Self::CloudEvents),
            (_, Some(message_type)) if !message_type.is_empty() => {
                Ok(Self::Plain(message_type.to_owned()))
            }
            _ => Err("must be debezium, cloudevents or plain:TYPE"),
        }
    }

    /// Lets a container read entries of this format.
    pub(crate) fn add_to(&self, builder: ContainerBuilder) -> ContainerBuilder {
        match self {
            Self::Debezium => builder.with_foreign(foreign::debezium()),
            Self::CloudEvents => builder.with_foreign(foreign::cloud_events()),
            Self::Plain(message_type) => builder.with_foreign(foreign::plain(message_type)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_of_foreign_entries_parse() {
        let plain = ForeignFormat::Plain("a:b".to_owned());
        assert_eq!(ForeignFormat::parse("plain:a:b"), Ok(plain));
        assert_eq!(
            ForeignFormat::parse("debezium"),
            Ok(ForeignFormat::Debezium)
        );
        for text in ["", "plain", "plain:", "avro"] {
            assert!(ForeignFormat::parse(text).is_err(), "{text}");
        }
    }
}
