//! Which files a recording has.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::recording;

/// A file to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::commands) enum Input {
    /// Standard input.
    Stdin,
    /// A part.
    File(PathBuf),
}

impl Input {
    /// The files that a name stands for ([`files`]).
    pub fn of(name: &Path) -> Result<Vec<Self>> {
        files(name)
    }

    /// Its bytes.
    pub fn open(&self) -> Result<Box<dyn Read>> {
        Ok(match self {
            Self::Stdin => Box::new(io::stdin().lock()),
            Self::File(path) => Box::new(
                File::open(path).with_context(|| format!("cannot open {}", path.display()))?,
            ),
        })
    }

    /// Its name in messages.
    pub fn name(&self) -> String {
        match self {
            Self::Stdin => "standard input".to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }
}

/// The files that a name stands for: a file; the parts of a recording, by the name without their numbers; all
/// recordings in a directory; `-` for standard input.
pub(super) fn files(name: &Path) -> Result<Vec<Input>> {
    if name == Path::new("-") {
        return Ok(vec![Input::Stdin]);
    }
    let found = match fs::metadata(name) {
        Ok(meta) if meta.is_dir() => in_directory(name)?,
        Ok(_) => vec![name.to_owned()],
        Err(error) => {
            let parts = recording::parts(name).unwrap_or_default();
            if parts.is_empty() {
                return Err(error).with_context(|| format!("cannot open {}", name.display()));
            }
            parts.into_iter().map(|(_, path)| path).collect()
        }
    };
    Ok(found.into_iter().map(Input::File).collect())
}

/// All recordings in a directory: files whose names end in `.rec`, and numbered parts.
fn in_directory(directory: &Path) -> Result<Vec<PathBuf>> {
    let cannot = || format!("cannot read {}", directory.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).with_context(cannot)? {
        let entry = entry.with_context(cannot)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let base = name.rsplit_once('.').filter(|(_, number)| {
            number.len() >= 6 && number.bytes().all(|byte| byte.is_ascii_digit())
        });
        let (base, number) = base.unwrap_or((&name, ""));
        if Path::new(base).extension().is_some_and(|of| of == "rec")
            && entry.file_type().is_ok_and(|kind| kind.is_file())
        {
            found.push((base.to_owned(), number.len(), number.to_owned(), entry.path()));
        }
    }
    if found.is_empty() {
        bail!(
            "{} has no recording: their names end in .rec, or .rec.000001 and so on; name the files",
            directory.display()
        );
    }
    found.sort();
    Ok(found.into_iter().map(|(.., path)| path).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_for_files_parts_and_directories() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in
            ["b.rec.000002", "b.rec.000001", "b.rec.1000000", "a.rec", "notes.txt", "c.rec.x"]
        {
            fs::write(path(name), "").unwrap();
        }
        let names = |of: &Path| -> Vec<String> {
            let names = files(of).unwrap().iter().map(Input::name).collect::<Vec<_>>();
            names.iter().map(|name| name.rsplit('/').next().unwrap().to_owned()).collect()
        };
        assert_eq!(
            names(directory.path()),
            ["a.rec", "b.rec.000001", "b.rec.000002", "b.rec.1000000"]
        );
        assert_eq!(names(&path("b.rec")), ["b.rec.000001", "b.rec.000002", "b.rec.1000000"]);
        assert_eq!(names(&path("notes.txt")), ["notes.txt"]);
        assert_eq!(files(Path::new("-")).unwrap(), [Input::Stdin]);
        assert!(files(&path("none.rec")).unwrap_err().to_string().contains("cannot open"));
        let empty = tempfile::tempdir().unwrap();
        assert!(files(empty.path()).unwrap_err().to_string().contains("has no recording"));
    }
}
