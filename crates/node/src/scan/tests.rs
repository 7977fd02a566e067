//! Scans of files as tools write them, of the same with something changed, and of noise.

use ballast_testkit::content::splitmix;
use proptest::prelude::*;

use super::*;
use crate::rig::Rig;

/// Imports `os.system` and calls it, in the form of every protocol.
const HARM: &[u8] = b"\x80\x02cposix\nsystem\nX\x04\0\0\0trueq\0\x85q\x01Rq\x02.";
const HARMLESS: &[u8] = b"\x80\x02ccollections\nOrderedDict\n)R.";

async fn scan_as(hub: &Arc<Hub>, path: &str, content: &[u8]) -> Scan {
    let source = Source::Bytes { hub: Arc::clone(hub), bytes: Bytes::copy_from_slice(content) };
    content::scan(&source, Class::of(path)).await.expect("memory can be read")
}

/// An archive with these entries, of which the content is stored or deflated.
fn zip(entries: &[(&str, &[u8])], deflates: bool) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    let u16 = |value: usize| u16::try_from(value).expect("small").to_le_bytes();
    let u32 = |value: usize| u32::try_from(value).expect("small").to_le_bytes();
    for (name, content) in entries {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(content);
        let packed = match deflates {
            true => miniz_oxide::deflate::compress_to_vec(content, 6),
            false => content.to_vec(),
        };
        let mut common = vec![20, 0, 0, 0, if deflates { 8 } else { 0 }, 0, 0, 0, 0, 0];
        common.extend(hasher.finalize().to_le_bytes());
        common.extend(u32(packed.len()));
        common.extend(u32(content.len()));
        common.extend(u16(name.len()));
        common.extend([0, 0]);
        directory.extend(b"PK\x01\x02\x14\0");
        directory.extend(&common);
        directory.extend([0; 10]);
        directory.extend(u32(file.len()));
        directory.extend(name.as_bytes());
        file.extend(b"PK\x03\x04");
        file.extend(&common);
        file.extend(name.as_bytes());
        file.extend(packed);
    }
    let start = file.len();
    file.extend(&directory);
    file.extend(b"PK\x05\x06\0\0\0\0");
    file.extend([u16(entries.len()), u16(entries.len())].concat());
    file.extend([u32(directory.len()), u32(start)].concat());
    file.extend([0, 0]);
    file
}

fn names(scan: &Scan) -> Vec<String> {
    scan.imports.iter().map(|import| format!("{}.{}", import.module, import.name)).collect()
}

#[tokio::test]
async fn a_pickle_is_one_whatever_it_is_called() {
    let rig = Rig::start().await;
    for path in ["a.pkl", "a.bin", "README.md", "LICENSE", "a.safetensors", "a.npz", "config.json"]
    {
        let scan = scan_as(&rig.hub, path, HARM).await;
        assert_eq!(scan.status, Status::Unsafe, "{path}");
        assert_eq!(names(&scan), ["posix.system"], "{path}");
    }
    // Without a protocol in front, and cut short: what was imported was imported.
    let text = b"cos\nsystem\n(S'true'\ntR";
    for path in ["a.pkl", "a.bin", "a"] {
        assert_eq!(scan_as(&rig.hub, path, text).await.status, Status::Unsafe, "{path}");
    }
}

#[tokio::test]
async fn what_is_no_pickle_is_not_taken_for_one() {
    let rig = Rig::start().await;
    let code = b"class A:\n    pass\nc = 1\n";
    let header = [&640_u64.to_le_bytes()[..], b"{\"a\":{}}"].concat();
    let noise = splitmix(5, 100_000);
    for (path, content) in [
        ("a.py", &code[..]),
        ("LICENSE", b"copyright (c) us\nall rights\nreserved"),
        ("README.md", b"(an introduction)\ncome in\nplease\n"),
        ("model.safetensors", &header),
        ("noise.bin", &noise),
        ("empty.pkl", b""),
    ] {
        let scan = scan_as(&rig.hub, path, content).await;
        assert_eq!((scan.status, scan.has_pickle()), (Status::Safe, false), "{path}: {scan:?}");
    }
}

#[tokio::test]
async fn pickles_one_behind_the_other_are_all_followed() {
    let rig = Rig::start().await;
    let twice = [HARMLESS, HARMLESS].concat();
    assert_eq!(scan_as(&rig.hub, "a.pkl", &twice).await.status, Status::Safe);
    let second = [HARMLESS, HARM].concat();
    assert_eq!(scan_as(&rig.hub, "a.pkl", &second).await.status, Status::Unsafe);
    let junk = [HARMLESS, b"\0\0"].concat();
    assert_eq!(scan_as(&rig.hub, "a.pkl", &junk).await.status, Status::Suspicious);
    // A large text in front is passed over.
    let large = [b"\x80\x04B\0\0\x20\0", &vec![7; 1 << 21][..], b"0", &HARM[2..]].concat();
    assert_eq!(scan_as(&rig.hub, "a.pkl", &large).await.status, Status::Unsafe);
}

#[tokio::test]
async fn archives_are_looked_into_packed_or_not() {
    let rig = Rig::start().await;
    let storage: &[u8] = b"\x80\x02cposix\nsystem\n.";
    for deflates in [false, true] {
        let good = zip(&[("a/data.pkl", HARMLESS), ("a/version", b"3\n")], deflates);
        let scan = scan_as(&rig.hub, "a.pt", &good).await;
        assert_eq!(scan.status, Status::Safe, "{scan:?}");
        assert_eq!(scan.kinds, ["zip", "pickle"]);
        let bad = zip(&[("a/data.pkl", HARMLESS), ("a/code/x.txt", HARM)], deflates);
        for path in ["a.pt", "a.zip", "a.txt"] {
            let scan = scan_as(&rig.hub, path, &bad).await;
            assert_eq!((scan.status, names(&scan).len()), (Status::Unsafe, 2), "{scan:?}");
        }
        let nested = zip(&[("inner.zip", &good)], deflates);
        assert_eq!(scan_as(&rig.hub, "a.zip", &nested).await.status, Status::Suspicious);
        // The bytes of a tensor are no program, whatever they look like.
        let tensors = zip(&[("a/data.pkl", HARMLESS), ("a/data/0", storage)], false);
        assert_eq!(scan_as(&rig.hub, "a.pt", &tensors).await.status, Status::Safe);
        let trailing = zip(&[("data.pkl", &[HARMLESS, b"x"].concat())], deflates);
        assert_eq!(scan_as(&rig.hub, "a.pt", &trailing).await.status, Status::Suspicious);
    }
}

#[tokio::test]
async fn archives_that_lie_are_suspicious_and_read_all_the_same() {
    let rig = Rig::start().await;
    for deflates in [false, true] {
        let good = zip(&[("data.pkl", HARMLESS)], deflates);
        let mut crc = good.clone();
        let directory = crc.len() - 22 - 46 - 8;
        // The same wrong checksum in both headers: only the content tells.
        for at in [14, directory + 16] {
            crc[at] ^= 1;
        }
        let scan = scan_as(&rig.hub, "a.pt", &crc).await;
        assert_eq!(scan.status, Status::Suspicious, "{scan:?}");
        assert_eq!(scan.problems, [ballast_format::archive::Flaw::WrongContent.to_string()]);
        let bad = zip(&[("data.pkl", HARM), ("data.pkl", HARMLESS)], deflates);
        let scan = scan_as(&rig.hub, "a.pt", &bad).await;
        assert!(scan.status == Status::Unsafe && !scan.problems.is_empty(), "{scan:?}");
        let prefixed = [b"MZ", &zip(&[("data.pkl", HARM)], deflates)[..]].concat();
        let scan = scan_as(&rig.hub, "a.npz", &prefixed).await;
        assert_eq!(scan.status, Status::Suspicious, "{scan:?}");
    }
}

#[tokio::test]
async fn arrays_of_objects_are_pickles() {
    let rig = Rig::start().await;
    let array = |element: &str, content: &[u8]| {
        let text = format!("{{'descr': {element}, 'fortran_order': False, 'shape': (2,), }}\n");
        let length = u16::try_from(text.len()).expect("short").to_le_bytes();
        [b"\x93NUMPY\x01\0", &length[..], text.as_bytes(), content].concat()
    };
    let numbers = array("'<f8'", HARM);
    assert_eq!(scan_as(&rig.hub, "a.npy", &numbers).await.status, Status::Safe);
    for element in ["'O'", "'|O8'"] {
        let old = array(element, HARM);
        assert_eq!(scan_as(&rig.hub, "a.npy", &old).await.status, Status::Unsafe, "{element}");
    }
    let objects = array("'|O'", HARM);
    assert_eq!(scan_as(&rig.hub, "a.npy", &objects).await.status, Status::Unsafe);
    assert_eq!(scan_as(&rig.hub, "a.bin", &objects).await.status, Status::Unsafe);
    for deflates in [false, true] {
        let archive = zip(&[("x.npy", &numbers), ("y.npy", &objects)], deflates);
        let scan = scan_as(&rig.hub, "a.npz", &archive).await;
        assert_eq!(scan.status, Status::Unsafe, "{scan:?}");
        let archive = zip(&[("x.npy", &numbers)], deflates);
        let scan = scan_as(&rig.hub, "a.npz", &archive).await;
        assert_eq!(scan.status, Status::Safe, "{scan:?}");
    }
    for element in ["'|' 'O'", "'\\x7cO'", "[('a', '|O')]"] {
        let scan = scan_as(&rig.hub, "a.npy", &array(element, HARM)).await;
        assert_eq!(scan.status, Status::Suspicious, "{element}");
    }
}

#[tokio::test]
async fn torchscript_calls_for_caution() {
    let rig = Rig::start().await;
    let program = b"\x80\x02c__torch__.model\nNet\n)\x81}(X\x01\0\0\0aK\x01ub.";
    let archive = zip(&[("a/data.pkl", program), ("a/code/__torch__/model.py", b"class A")], false);
    let scan = scan_as(&rig.hub, "a.pt", &archive).await;
    assert_eq!((scan.status, &*scan.imports[0].safety), (Status::Caution, "suspicious"));
}

#[tokio::test]
async fn a_configuration_that_names_code_calls_for_caution() {
    let rig = Rig::start().await;
    let config = br#"{"auto_map": {"AutoModel": "code.Model"}}"#;
    assert_eq!(scan_as(&rig.hub, "config.json", config).await.status, Status::Caution);
    assert_eq!(scan_as(&rig.hub, "other.json", config).await.status, Status::Safe);
    let null = br#"{"auto_map": null}"#;
    assert_eq!(scan_as(&rig.hub, "config.json", null).await.status, Status::Safe);
}

#[tokio::test]
async fn a_verdict_is_kept_by_content_and_made_anew_by_other_rules() -> Result<()> {
    let rig = Rig::start().await;
    let anna = rig.user("anna").await;
    let repo = rig.repo(&anna, "anna/model").await;
    rig.put_large(&anna, &repo, "a.pkl", HARM).await;
    rig.put(&anna, &repo, "same.pkl", HARM).await?;
    let items = rig.listing(&repo).await;
    let item = |path: &str| items.iter().find(|item| item.path == path).expect("it is there");
    let large = item("a.pkl");
    assert_eq!(rig.hub.known_scans(std::slice::from_ref(large)).await?, [None]);
    let scan = rig.hub.scan(&repo, large).await?;
    assert_eq!(scan.status, Status::Unsafe);
    let known = rig.hub.known_scans(std::slice::from_ref(large)).await?;
    assert_eq!(known, [Some(Arc::clone(&scan))]);
    assert_eq!(rig.hub.scan(&repo, item("same.pkl")).await?.status, Status::Unsafe);
    // A row of older rules, or a damaged one, is as good as none.
    let older =
        serde_json::to_string(&*scan).expect("it is JSON").replace("\"rules\":", "\"rules\":9");
    for row in [older.as_bytes(), b"{", b""] {
        let mut batch = Batch::new();
        batch.put(Table::Scan, key(large), row);
        rig.hub.index().apply(batch).await?;
        assert_eq!(rig.hub.known_scans(std::slice::from_ref(large)).await?, [None]);
        assert_eq!(rig.hub.scan(&repo, large).await?, scan);
    }
    Ok(())
}

#[tokio::test]
async fn the_worker_looks_at_what_commits_brought() -> Result<()> {
    use crate::worker::Worker as _;
    let rig = Rig::start().await;
    let anna = rig.user("anna").await;
    let repo = rig.repo(&anna, "anna/model").await;
    rig.put(&anna, &repo, "a.pkl", HARM).await?;
    let worker = ScanWorker::default();
    for _ in 0..3 {
        worker.work(&rig.hub).await;
    }
    let known = rig.hub.known_scans(&rig.listing(&repo).await).await?;
    assert!(known.iter().all(Option::is_some), "{known:?}");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_that_is_harmful_becomes_safe_by_a_change(
        at in 0_usize..400,
        byte in any::<u8>(),
        deflates in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build();
        runtime.expect("a runtime").block_on(async {
            let rig = Rig::start().await;
            let mut file = zip(&[("a/data.pkl", HARM), ("a/version", b"3\n")], deflates);
            let at = at % file.len();
            let before = std::mem::replace(&mut file[at], byte);
            let scan = scan_as(&rig.hub, "a.pt", &file).await;
            // One byte may turn the name itself into another; none turns it into a good one.
            assert!(scan.status > Status::Caution, "{at}: {before} to {byte}: {scan:?}");
            let noise = scan_as(&rig.hub, "a.pt", &file[at..]).await;
            assert!(noise.status > Status::Caution, "from {at}: {noise:?}");
        });
    }
}

#[tokio::test]
async fn what_is_not_looked_into_is_said_and_never_called_safe() {
    let rig = Rig::start().await;
    let tar = [&[b'a'; 257][..], b"ustar\x0000", &[0; 300]].concat();
    for (kind, content) in [
        ("7z", &b"7z\xbc\xaf\x27\x1c\0\x04"[..]),
        ("tar", &tar),
        ("gzip", b"\x1f\x8b\x08\0\0\0\0\0"),
        ("xz", b"\xfd7zXZ\0\0\x04"),
        ("hdf5", b"\x89HDF\r\n\x1a\n\0\0"),
    ] {
        for (path, status) in [("model.nemo", Status::Caution), ("weights.h5", Status::Caution)] {
            let scan = scan_as(&rig.hub, path, content).await;
            assert_eq!((scan.status, &scan.kinds[..]), (status, &[kind.to_owned()][..]), "{path}");
            assert!(scan.summary().contains("not scanned"), "{}", scan.summary());
        }
    }
    // `torch.load` would see something else than we do.
    let scan = scan_as(&rig.hub, "model.pt", b"7z\xbc\xaf\x27\x1c\0\x04").await;
    assert_eq!(scan.status, Status::Suspicious);
}

#[tokio::test]
async fn a_keras_model_with_code_in_it_is_unsafe() {
    let rig = Rig::start().await;
    let weights: &[u8] = b"\x89HDF\r\n\x1a\n the weights";
    let model = |class: &str| format!(r#"{{"class_name": "{class}", "config": {{}}}}"#);
    for deflates in [false, true] {
        for (class, status) in [("Dense", Status::Safe), ("Lambda", Status::Unsafe)] {
            let config = model(class);
            let entries = [("config.json", config.as_bytes()), ("model.weights.h5", weights)];
            let scan = scan_as(&rig.hub, "model.keras", &zip(&entries, deflates)).await;
            assert_eq!(scan.status, status, "{class}: {scan:?}");
            assert_eq!(scan.kinds, ["zip", "keras", "hdf5"]);
        }
        let inner = [("model.7z", &b"7z\xbc\xaf\x27\x1c\0\x04"[..])];
        let scan = scan_as(&rig.hub, "a.zip", &zip(&inner, deflates)).await;
        assert_eq!(scan.status, Status::Suspicious, "{scan:?}");
    }
}
