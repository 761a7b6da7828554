//! `print exporter`: settings of redis_exporter.

use super::{Names, fill};
use crate::args::ExporterArgs;

/// The file's name and its text.
pub(super) fn file(args: &ExporterArgs, names: &Names) -> (String, String) {
    let tag = names.topic("*");
    let database = args.database;
    let searched = |patterns: &[&str]| {
        let patterns = patterns
            .iter()
            .map(|rest| format!("db{database}={tag}:{rest}"));
        patterns.collect::<Vec<_>>().join(",")
    };
    let acl = format!(
        "user redstart-exporter off %R~{tag}:log %R~{tag}:group:* -@all +ping +select \
         +client|setname +info +scan +type +xinfo|stream +xinfo|groups +xinfo|consumers +zcard \
         +slowlog|len +latency|latest"
    );
    let streams = searched(&["log", "group:*:redo", "group:*:dead"]);
    let keys = searched(&["group:*:retry"]);
    let values = [
        ("ADDRESS", &*args.address),
        ("ACL", &acl),
        ("STREAMS", &streams),
        ("KEYS", &keys),
    ];
    let template = include_str!("../../../../docs/ops/exporter.env");
    ("redstart-exporter.env".to_owned(), fill(template, &values))
}
