//! The file of contexts: read, and replaced in one step.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::Contexts;
use crate::failure::Failure;

/// Where the contexts lie: `$REDSTART_CONTEXTS`, or `redstart/contexts.toml` in the user's folder of
/// settings.
pub(crate) fn path() -> Result<PathBuf, Failure> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(path) = set("REDSTART_CONTEXTS") {
        return Ok(path.into());
    }
    let folder = set("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| {
        let home = set("HOME").or_else(|| set("USERPROFILE"))?;
        Some(PathBuf::from(home).join(".config"))
    });
    let rule = "no home folder is set; name the file of contexts in REDSTART_CONTEXTS";
    let folder = folder.ok_or_else(|| Failure::usage(rule))?;
    Ok(folder.join("redstart").join("contexts.toml"))
}

/// Reads the contexts; a missing file has none.
pub(crate) fn load(path: &Path) -> Result<Contexts, Failure> {
    let named = |rule: String| Failure::usage(format!("{}: {rule}", path.display()));
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Contexts::default()),
        text => text.map_err(|error| named(error.to_string()))?,
    };
    if is_open_to_others(path).map_err(|error| named(error.to_string()))? {
        return Err(named(
            "other users can write it, and it names commands to run; chmod 600 it".to_owned(),
        ));
    }
    toml::from_str(&text).map_err(|error| named(error.message().to_owned()))
}

#[cfg(unix)]
fn is_open_to_others(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs::metadata(path)?.permissions().mode() & 0o022 != 0)
}

#[cfg(not(unix))]
fn is_open_to_others(_: &Path) -> io::Result<bool> {
    Ok(false)
}

/// Replaces the file in one step. Only the user can read it.
pub(crate) fn save(path: &Path, contexts: &Contexts) -> Result<(), Failure> {
    let named = |error: io::Error| Failure::new(format!("{}: {error}", path.display()));
    let text = toml::to_string_pretty(contexts)
        .map_err(|error| named(io::Error::other(error.to_string())))?;
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(named)?;
    // A temporary file has mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(named)?;
    file.write_all(text.as_bytes()).map_err(named)?;
    file.as_file().sync_all().map_err(named)?;
    file.persist(path).map_err(|error| named(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Context;

    fn contexts() -> Contexts {
        let context = Context {
            redis_url: Some("redis://h:6379".to_owned()),
            namespace: Some("shop".to_owned()),
            ..Context::default()
        };
        Contexts {
            current: Some("staging".to_owned()),
            contexts: [("staging".to_owned(), context)].into(),
        }
    }

    #[test]
    fn contexts_survive_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deeper").join("contexts.toml");
        assert_eq!(load(&path).unwrap(), Contexts::default());
        for all in [contexts(), Contexts::default(), contexts()] {
            save(&path, &all).unwrap();
            assert_eq!(load(&path).unwrap(), all);
        }
        fs::write(&path, "currant = 1").unwrap();
        let told = load(&path).unwrap_err().line().unwrap();
        assert!(told.contains("currant"), "{told}");
    }

    #[cfg(unix)]
    #[test]
    fn only_the_user_can_read_and_write_the_file() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("contexts.toml");
        save(&path, &contexts()).unwrap();
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        let told = load(&path).unwrap_err().line().unwrap();
        assert!(told.contains("chmod 600"), "{told}");
        save(&path, &contexts()).unwrap();
        assert_eq!(mode(), 0o600);
    }
}
