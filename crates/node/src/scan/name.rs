//! What a file's name says about how programs load it.

/// How a name makes programs treat a file. A verdict is kept for each of them, since what is a
/// pickle to a program that expects one is noise to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Class {
    /// Loaded as a pickle.
    Pickle,
    /// Loaded as an array, or an archive of arrays.
    Array,
    /// A configuration in which code may be named.
    Config,
    /// Never loaded as a pickle.
    Inert,
    /// Nobody can tell.
    Unknown,
}

/// Endings of files that programs unpickle.
const PICKLES: &[&str] =
    &["ckpt", "dill", "joblib", "p", "pickle", "pk", "pkl", "pt", "pth", "pt2", "sav", "th"];
/// Endings of files that nobody unpickles.
const INERT: &[&str] = &[
    "arrow",
    "avi",
    "bmp",
    "c",
    "cfg",
    "cpp",
    "css",
    "csv",
    "cu",
    "flac",
    "ftl",
    "gguf",
    "gif",
    "gitattributes",
    "gitignore",
    "h",
    "htm",
    "html",
    "ico",
    "ini",
    "ipynb",
    "jinja",
    "jpeg",
    "jpg",
    "js",
    "json",
    "jsonl",
    "lock",
    "log",
    "md",
    "mkv",
    "mp3",
    "mp4",
    "ogg",
    "onnx",
    "parquet",
    "pdf",
    "png",
    "proto",
    "py",
    "pyi",
    "rs",
    "rst",
    "safetensors",
    "sh",
    "svg",
    "tex",
    "toml",
    "ts",
    "tsv",
    "txt",
    "wav",
    "webm",
    "webp",
    "xml",
    "yaml",
    "yml",
];

impl Class {
    /// The class of a path.
    pub(super) fn of(path: &str) -> Self {
        let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
        let Some((_, ending)) = name.rsplit_once('.') else {
            return Self::Unknown;
        };
        if name == "config.json" {
            Self::Config
        } else if PICKLES.contains(&ending) {
            Self::Pickle
        } else if matches!(ending, "npy" | "npz") {
            Self::Array
        } else if INERT.contains(&ending) {
            Self::Inert
        } else {
            Self::Unknown
        }
    }

    /// The number that stands for it in keys.
    pub(super) fn tag(self) -> u8 {
        match self {
            Self::Pickle => 1,
            Self::Array => 2,
            Self::Config => 3,
            Self::Inert => 4,
            Self::Unknown => 5,
        }
    }
}

/// Whether an entry of an archive holds the numbers of a tensor: `torch.load` takes these as they
/// are.
pub(super) fn is_storage(name: &str) -> bool {
    let mut parts = name.rsplit('/');
    let (last, folder) = (parts.next().unwrap_or(""), parts.next());
    folder == Some("data") && !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        for (path, class) in [
            ("pytorch_model.bin", Class::Unknown),
            ("a/b.PT", Class::Pickle),
            ("model.safetensors", Class::Inert),
            ("config.json", Class::Config),
            ("sub/config.json", Class::Config),
            ("x.npz", Class::Array),
            ("LICENSE", Class::Unknown),
            ("README.md", Class::Inert),
        ] {
            assert_eq!(Class::of(path), class, "{path}");
        }
        assert!(is_storage("archive/data/0") && is_storage("data/12"));
        assert!(!is_storage("archive/data.pkl") && !is_storage("data/x.pkl"));
    }
}
