//! Files whose paths say what must be in them.

use crate::support::noise;

/// How a file goes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Inline,
    Lfs,
    Xet,
}

/// What is in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Nobody else has it.
    Own { seed: u64, length: usize },
    /// One of few, so that repos share files, and files share chunks.
    Pool { number: u64 },
}

/// Blocks of which the contents of the pool are made, two each.
const BLOCKS: u64 = 6;
const BLOCK_BYTES: usize = 280_000;

impl Content {
    pub(crate) fn pool(number: u64) -> Self {
        Self::Pool { number: number % (BLOCKS * BLOCKS) }
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        let block = |number: u64| noise(number + 1000, BLOCK_BYTES);
        match self {
            Self::Own { seed, length } => noise(seed, length),
            Self::Pool { number } => [block(number / BLOCKS), block(number % BLOCKS)].concat(),
        }
    }

    fn name(self) -> String {
        match self {
            Self::Own { seed, length } => format!("own-{seed:x}-{length}"),
            Self::Pool { number } => format!("pool-{number}"),
        }
    }

    fn parse(name: &str) -> Option<Self> {
        let words: Vec<&str> = name.split('-').collect();
        match words.as_slice() {
            ["own", seed, length] => {
                let seed = u64::from_str_radix(seed, 16).ok()?;
                Some(Self::Own { seed, length: length.parse().ok()? })
            }
            ["pool", number] => Some(Self::Pool { number: number.parse().ok()? }),
            _ => None,
        }
    }
}

/// A file of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) kind: Kind,
    pub(crate) content: Content,
    pub(crate) path: String,
}

/// What a path says: which commit it belongs to, how many files that has, and its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) commit: String,
    pub(crate) files: usize,
    pub(crate) content: Content,
}

impl Planned {
    /// File `place` of `files` of a writer's commit.
    pub(crate) fn new(
        (writer, serial): (usize, u64),
        (place, files): (usize, usize),
        kind: Kind,
        content: Content,
    ) -> Self {
        let path = format!("{writer}/{serial:06}/{place}-of-{files}/{}.bin", content.name());
        Self { kind, content, path }
    }
}

/// Reads a path; `None` for files that are not of commits.
pub(crate) fn said(path: &str) -> Option<Said> {
    let words: Vec<&str> = path.split('/').collect();
    let [writer, serial, place, name] = words.as_slice() else { return None };
    let (_, files) = place.split_once("-of-")?;
    let content = Content::parse(name.strip_suffix(".bin")?)?;
    Some(Said { commit: format!("{writer}/{serial}"), files: files.parse().ok()?, content })
}

/// Where a writer notes its last commit to a repo.
pub(crate) fn latest_path(writer: usize) -> String {
    format!("latest/{writer}")
}

/// Commits of which only some files are among these paths.
pub(crate) fn half_commits<'a>(paths: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut found = std::collections::BTreeMap::<String, (usize, usize)>::new();
    for said in paths.filter_map(said) {
        found.entry(said.commit).or_insert((said.files, 0)).1 += 1;
    }
    found.retain(|_, (files, there)| files != there);
    found.into_iter().map(|(commit, (files, there))| format!("{commit}: {there}/{files}")).collect()
}

#[test]
fn a_path_says_what_it_was_made_of() {
    for content in [Content::Own { seed: 0xab, length: 7 }, Content::pool(40)] {
        let planned = Planned::new((3, 17), (1, 2), Kind::Xet, content);
        let said = said(&planned.path).expect("it is one of ours");
        assert_eq!((said.commit.as_str(), said.files, said.content), ("3/000017", 2, content));
        assert_eq!(half_commits([planned.path.as_str()].into_iter()), ["3/000017: 1/2"]);
    }
    assert_eq!(said(&latest_path(3)), None);
}
