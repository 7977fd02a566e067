//! What the git of this machine says of what we write.

use super::*;
use crate::download::ItemKind;

#[tokio::test]
async fn git_reads_our_history_as_its_own() -> Result<()> {
    let (rig, anna, repo) = rig().await;
    rig.put(&anna, &repo, "README.md", "# Ümläut\n").await?;
    rig.put(&anna, &repo, "a/b/c.txt", "c").await?;
    // Folders are sorted as if their names ended with a slash.
    for name in ["a.txt", "a-b", "a0", "empty", "with space/and \"quotes\""] {
        let content = if name == "empty" { "" } else { name };
        rig.put(&anna, &repo, name, content.to_owned()).await?;
    }
    rig.put_large(&anna, &repo, "odd [name].weights", &splitmix(6, 100_000)).await;
    let mut draft = rig.draft(&anna, &repo).await;
    draft.rename(path("a/b/c.txt"), path("moved/c.txt"))?;
    draft.delete_file(path("a0"))?;
    draft.finish().await?;
    let proposal = CommitHeader {
        summary: "a title".to_owned(),
        description: "and more\nto say".to_owned(),
        create_pull: true,
        ..header()
    };
    let mut draft = rig.hub.begin_commit(&anna, repo.clone(), proposal).await?;
    draft.add_file(path("proposed.txt"), "p".into()).await?;
    draft.finish().await?;

    let git = Git::of(&rig, &repo).await;
    git.run(&["fsck", "--full", "--strict", "--no-dangling"]);
    let listed = git.run(&["ls-tree", "-r", "-t", "-z", "main"]);
    let listed: Vec<&str> = listed.split_terminator('\0').collect();
    let ours = rig.listing(&repo).await;
    let line = |item: &crate::download::TreeItem| match item.kind {
        ItemKind::File => format!("100644 blob {}\t{}", item.id, item.path),
        ItemKind::Directory => format!("040000 tree {}\t{}", item.id, item.path),
    };
    let ours: Vec<String> = ours.iter().map(line).collect();
    assert_eq!(listed, ours);
    let log = git.run(&["log", "--format=%H|%an|%ae|%at|%s|%b", "refs/pr/1"]);
    let head = log.lines().next().expect("a commit");
    let mail = "anna@users.noreply.ballast";
    let time = ballast_testkit::clock::START_MS / 1000;
    assert!(head.contains(&format!("|anna|{mail}|{time}|a title|and more")), "{head}");
    let (history, total) = rig.hub.history(&repo, rig.main(&repo).await, 0, 100).await?;
    let ids: Vec<String> = history.iter().map(|view| view.id.to_string()).collect();
    let theirs = git.run(&["rev-list", "main"]);
    assert_eq!(theirs.lines().collect::<Vec<_>>(), ids);
    assert_eq!(total, ids.len() as u64);
    Ok(())
}

#[tokio::test]
async fn git_takes_our_large_files_for_large_files() -> Result<()> {
    let (rig, anna, repo) = rig().await;
    let names = [
        "plain",
        "with space",
        "deep/a b/c*?[x]",
        "#hash",
        "!bang",
        "!bang2/x",
        "\"quoted\"",
        "ümlaut",
        "{a,b}",
        "model.safetensors",
        "folder.bin/x",
        "[attr]x",
        "[attr]/y",
    ];
    let sha256 = rig.upload(&anna, &repo, &splitmix(7, 50_000)).await;
    let mut draft = rig.draft(&anna, &repo).await;
    for name in names {
        draft.add_large(path(name), sha256, None).await?;
        draft.add_file(path(&format!("other/{name}/small.txt")), "x".into()).await?;
    }
    draft.finish().await?;
    let git = Git::of(&rig, &repo).await;
    let ask = |names: Vec<String>| {
        let input = names.join("\0") + "\0";
        let check = ["check-attr", "--source=main", "-z", "--stdin", "filter"];
        let answer = git.feed(&check, input.as_bytes());
        let fields: Vec<String> = answer.split_terminator('\0').map(ToOwned::to_owned).collect();
        fields.chunks(3).map(|row| (row[0].clone(), row[2].clone())).collect::<Vec<_>>()
    };
    for (name, filter) in ask(names.map(ToOwned::to_owned).to_vec()) {
        assert_eq!(filter, "lfs", "{name}");
    }
    for (name, filter) in ask(names.map(|name| format!("other/{name}/small.txt")).to_vec()) {
        assert_eq!(filter, "unspecified", "{name}");
    }
    Ok(())
}

#[test]
fn git_reads_attributes_as_we_do() {
    let files = [
        "*.bin filter=lfs\n",
        "*.bin filter=lfs\nsmall/*.bin -filter\n*.bin text\n",
        "/a.bin filter=lfs\nx/**/a.bin filter=lfs\n",
        "folder filter=lfs\nfolder/ filter=lfs\n",
        "folder/** filter=lfs\n",
        "a[[:space:]]b filter=lfs\n\"x y\" filter=lfs\n",
        "[ab].bin filter=lfs\n[!ab].txt filter=lfs\na\\*b filter=lfs\n",
        "a{b,c} filter=lfs\n*.{x,y} filter=lfs\n",
        "# a.bin filter=lfs\n!a.bin filter=lfs\n\\#a filter=lfs\n",
        "**/deep/*.bin filter=lfs diff=lfs merge=lfs -text\ndeep/small.bin !filter\n",
        "*.bin filter=other\n*a* filter=lfs\nfolder/a.bin filter\n",
        "   *.bin   filter=lfs  \n\t\n*.txt\n",
        "x/*.bin filter=lfs\n?.bin -filter\n",
        "[ filter=lfs\n[a filter=lfs\n[]] filter=lfs\na\\ filter=lfs\n[!]a] filter=lfs\n",
    ];
    let paths = [
        "a.bin",
        "b.bin",
        "c.txt",
        "a.txt",
        "small/a.bin",
        "x/a.bin",
        "x/y/z/a.bin",
        "folder",
        "folder/a.bin",
        "folder/b/c",
        "a b",
        "q/a b",
        "x y",
        "a*b",
        "aXb",
        "a{b,c}",
        "ab",
        "n.x",
        "n.{x,y}",
        "#a",
        "!a.bin",
        "deep/small.bin",
        "p/deep/small.bin",
        "deep/q/small.bin",
        "[",
        "[a",
        "]",
        "a",
        "b",
        "a]",
        "q",
    ];
    for text in files {
        let git = Git::new();
        std::fs::write(git.folder().join(".gitattributes"), text).expect("it is written");
        let input = paths.join("\0") + "\0";
        let answer = git.feed(&["check-attr", "-z", "--stdin", "filter"], input.as_bytes());
        let fields: Vec<&str> = answer.split_terminator('\0').collect();
        let ours = attributes::Attributes::parse(text);
        for row in fields.chunks(3) {
            assert_eq!(ours.is_large(&path(row[0])), row[2] == "lfs", "{text:?} {}", row[0]);
        }
    }
}
