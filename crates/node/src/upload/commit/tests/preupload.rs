//! What clients are told before they upload.

use super::*;

fn asked(place: &str, size: u64, sample: &[u8]) -> Asked {
    Asked { path: path(place), size, sample: sample.to_vec() }
}

#[tokio::test]
async fn size_content_and_attributes_decide() -> Result<()> {
    let (rig, _, repo) = rig().await;
    let tip = Some(rig.main(&repo).await);
    let files = [
        (asked("README.md", 10, b"# hello"), false),
        (asked("config.json", 10 << 20, b"{}"), false),
        (asked("config.json", (10 << 20) + 1, b"{}"), true),
        (asked("weights.bin", 10, b"text"), true),
        (asked("weights.bin", 0, b""), false),
        (asked("picture.png", 10, b"\x89PNG\r\n"), true),
        (asked("folder.bin/notes.txt", 10, b"text"), false),
    ];
    let ask: Vec<Asked> = files.iter().map(|(file, _)| file.clone()).collect();
    let verdicts = rig.hub.preupload(&repo, tip, &ask, None, None).await?;
    for ((file, large), verdict) in files.iter().zip(&verdicts) {
        assert_eq!((&verdict.path, verdict.large), (&file.path, *large), "{}", file.path);
        assert!(!verdict.ignore && verdict.oid.is_none());
    }
    let sent = Some("*.md filter=lfs\n");
    let verdicts = rig.hub.preupload(&repo, tip, &ask, None, sent).await?;
    assert!(verdicts[0].large && !verdicts[3].large, "the attributes that come count");
    let verdicts = rig.hub.preupload(&repo, None, &ask, None, None).await?;
    assert!(!verdicts[3].large && verdicts[5].large, "an empty repo has no attributes");
    Ok(())
}

#[tokio::test]
async fn ignored_files_are_named_so() -> Result<()> {
    let (rig, _, repo) = rig().await;
    let ask = ["a.log", "logs/deep/a.txt", "keep.log", "a.txt"].map(|name| asked(name, 1, b"x"));
    let ignore = Some("*.log\nlogs/\n!keep.log\n[\n");
    let verdicts = rig.hub.preupload(&repo, None, &ask, ignore, None).await?;
    let ignored: Vec<bool> = verdicts.iter().map(|verdict| verdict.ignore).collect();
    assert_eq!(ignored, [true, true, false, false]);
    Ok(())
}

#[tokio::test]
async fn what_is_there_is_told_by_its_id() -> Result<()> {
    let (rig, anna, repo) = rig().await;
    rig.put(&anna, &repo, "small.txt", "hello\n").await?;
    rig.put_large(&anna, &repo, "deep/weights.bin", b"many bytes").await;
    let tip = Some(rig.main(&repo).await);
    let ask = ["small.txt", "deep/weights.bin", "deep", "absent", "small.txt"];
    let ask = ask.map(|name| asked(name, 1, b"x"));
    let verdicts = rig.hub.preupload(&repo, tip, &ask, None, None).await?;
    let oids: Vec<_> = verdicts.into_iter().map(|verdict| verdict.oid).collect();
    let small = Some("ce013625030ba8dba906f756967f9e9ca394464a".to_owned());
    let large = Some(sha256(b"many bytes").to_string());
    assert_eq!(oids, [small.clone(), large, None, None, small]);
    Ok(())
}
