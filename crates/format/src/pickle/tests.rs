//! Pickles as Python's own tools write them, and as those write them who mean harm.

use proptest::prelude::*;

use super::*;

/// What `torch.save` puts into `data.pkl` for two tensors.
const STATE_DICT: &str = "\
    800263636f6c6c656374696f6e730a4f726465726564446963740a7100295271012858010000006171026374\
    6f7263682e5f7574696c730a5f72656275696c645f74656e736f725f76320a71032828580700000073746f72\
    616765710463746f7263680a466c6f617453746f726167650a71055801000000307106580300000063707571\
    074b06747108514b004b024b038671094b034b0186710a8968002952710b74710c52710d580100000062710e\
    6803282868046805580100000031710f68074b04747110514b004b024b028671114b024b0186711289680029\
    527113747114527115752e";
/// What `joblib.dump` makes of a dictionary with two arrays.
const JOBLIB: &str = "\
    800495da000000000000007d94288c0177948c136a6f626c69622e6e756d70795f7069636b6c65948c114e75\
    6d70794172726179577261707065729493942981947d94288c08737562636c617373948c056e756d7079948c\
    076e6461727261799493948c057368617065944b024b0386948c056f72646572948c0143948c056474797065\
    9468088c0564747970659493948c02663494898887945294284b038c013c944e4e4e4affffffff4affffffff\
    4b007494628c0a616c6c6f775f6d6d617094888c1b6e756d70795f61727261795f616c69676e6d656e745f62\
    79746573944b1075620affffffffffffffffffff000000000000803f0000004000004040000080400000a040\
    9549000000000000008c01629468042981947d94286807680a680b4b038594680d680e680f68118c02693894\
    898887945294284b0368154e4e4e4affffffff4affffffff4b0074946268178868184b10756205ffffffffff\
    000000000000000001000000000000000200000000000000752e";
/// The same of an array of objects.
const JOBLIB_OBJECTS: &str = "\
    800495d7000000000000007d948c0177948c136a6f626c69622e6e756d70795f7069636b6c65948c114e756d\
    70794172726179577261707065729493942981947d94288c08737562636c617373948c056e756d7079948c07\
    6e6461727261799493948c057368617065944b0285948c056f72646572948c0143948c056474797065946808\
    8c0564747970659493948c024f3894898887945294284b038c017c944e4e4e4affffffff4affffffff4b3f74\
    94628c0a616c6c6f775f6d6d617094898c1b6e756d70795f61727261795f616c69676e6d656e745f62797465\
    73944b10756280059590000000000000008c166e756d70792e5f636f72652e6d756c74696172726179948c0c\
    5f7265636f6e7374727563749493948c056e756d7079948c076e6461727261799493944b0085944301629487\
    945294284b014b02859468038c0564747970659493948c024f3894898887945294284b038c017c944e4e4e4a\
    ffffffff4affffffff4b3f749462895d94284b018c017894657494622e732e";
/// What `pickle.dumps` makes of an array.
const ARRAY: &str = "\
    800495a9000000000000008c166e756d70792e5f636f72652e6d756c74696172726179948c0c5f7265636f6e\
    7374727563749493948c056e756d7079948c076e6461727261799493944b0085944301629487945294284b01\
    4b04859468038c0564747970659493948c02663894898887945294284b038c013c944e4e4e4affffffff4aff\
    ffffff4b007494628943200000000000000000000000000000f03f0000000000000040000000000000084094\
    7494622e";

pub(super) fn bytes_of(hex: &str) -> Vec<u8> {
    let digit = |c: u8| (c as char).to_digit(16).map(|d| u8::try_from(d).expect("one digit"));
    let digits: Vec<u8> = hex.bytes().filter_map(digit).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// What a walker that gets pieces of this size finds, and how much it took.
fn walk_by(bytes: &[u8], piece: usize) -> (Report, usize) {
    let mut walker = Walker::new();
    let mut at = 0;
    for piece in bytes.chunks(piece) {
        let taken = walker.feed(piece);
        at += taken;
        if taken < piece.len() {
            break;
        }
    }
    (walker.finish(), at)
}

fn walk(bytes: &[u8]) -> Report {
    let (report, _) = walk_by(bytes, bytes.len().max(1));
    report
}

fn names(report: &Report) -> Vec<String> {
    report.imports.iter().map(|import| format!("{}.{}", import.module, import.name)).collect()
}

/// A short text as protocol 4 writes it.
fn text(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).expect("it is short");
    [&[0x8c, length], text.as_bytes()].concat()
}

#[track_caller]
fn check(pickle: &[u8], imports: &[&str], problems: &[Problem]) {
    for piece in [1, 3, pickle.len().max(1)] {
        let (report, _) = walk_by(pickle, piece);
        assert_eq!(names(&report), imports, "in pieces of {piece}");
        assert_eq!(report.problems, problems, "in pieces of {piece}");
    }
}

#[test]
fn tensors_are_safe_and_name_their_storages() {
    let report = walk(&bytes_of(STATE_DICT));
    assert!(!report.is_dangerous() && report.problems.is_empty(), "{report:?}");
    let expected =
        ["collections.OrderedDict", "torch._utils._rebuild_tensor_v2", "torch.FloatStorage"];
    assert_eq!(names(&report), expected);
    let storages: Vec<_> = report.storages.into_iter().collect();
    assert_eq!(storages, [("0".to_owned(), 24), ("1".to_owned(), 16)]);
    assert!(report.storages_known);
}

#[test]
fn arrays_of_numpy_are_safe() {
    let report = walk(&bytes_of(ARRAY));
    assert!(!report.is_dangerous() && report.problems.is_empty(), "{report:?}");
}

#[test]
fn arrays_in_the_stream_of_joblib_are_passed_over() {
    let file = bytes_of(JOBLIB);
    for piece in [1, 7, file.len()] {
        let (report, taken) = walk_by(&file, piece);
        assert!(!report.is_dangerous() && report.problems.is_empty(), "{report:?}");
        assert_eq!(taken, file.len(), "to the end");
    }
}

#[test]
fn a_pickle_within_a_joblib_file_is_followed_and_the_file_not_trusted() {
    let mut file = bytes_of(JOBLIB_OBJECTS);
    assert_eq!(walk(&file).problems, [Problem::Array]);
    // The inner pickle ends, the outer one goes on.
    file.truncate(file.len() - 1);
    file.extend(b"cos\nsystem\n.");
    assert!(walk(&file).is_dangerous());
    let inner = b"\x80\x04\x95";
    let at = file.windows(3).rposition(|window| window == inner).expect("it is there");
    file.splice(at..at, *b"\x80\x02cposix\nsystem\n0");
    assert!(names(&walk(&file)).contains(&"posix.system".to_owned()));
}

#[test]
fn an_array_that_hides_instructions_is_a_problem() {
    let file = bytes_of(JOBLIB);
    // The byte in front of the first array says how much padding there is.
    let at = file.windows(3).position(|window| window == b"ub\x0a").expect("an array") + 2;
    let mut hiding = file.clone();
    hiding[at] = b'c';
    assert_eq!(walk(&hiding).problems, [Problem::Array]);
    // An array without padding is the next instruction to a reader that knows of no arrays.
    let key = file.windows(5).position(|window| window == b"numpy").expect("a name");
    let mut other = file.clone();
    let alignment = file.windows(11).rposition(|window| window == b"_alignment_").expect("a key");
    assert!(key < alignment);
    other[alignment] = b'-';
    assert_eq!(walk(&other).problems, [Problem::Array]);
}

#[test]
fn every_way_to_import_is_seen() {
    check(b"cos\nsystem\n(S'id'\ntR.", &["os.system"], &[]);
    check(b"(S'id'\nios\nsystem\n.", &["os.system"], &[]);
    check(b"(cos\nsystem\nS'id'\no.", &["os.system"], &[]);
    let stack = [&b"\x80\x04"[..], &text("os"), &text("system"), b"\x93\x8c\x02id\x85R."];
    check(&stack.concat(), &["os.system"], &[]);
    // Texts of all forms, and with other instructions between them.
    check(b"\x80\x04U\x02osX\x06\0\0\0system\x93.", &["os.system"], &[]);
    check(b"T\x02\0\0\0osS'system'\n\x93.", &["os.system"], &[]);
    check(b"Vos\nVsystem\nN0\x93.", &["os.system"], &[]);
    check(b"\x80\x04\x8d\x02\0\0\0\0\0\0\0osN0(1\x8c\x06system\x93.", &["os.system"], &[]);
    let newobj = b"\x80\x02csubprocess\nPopen\n)\x81}b.";
    check(newobj, &["subprocess.Popen"], &[]);
    check(b"\x80\x04cos\nsystem\n)}\x92.", &["os.system"], &[]);
    // Behind a pickle within an argument nothing is lost.
    check(b"(dp0\nS'a'\n(lp1\nscnt\nsystem\n.", &["nt.system"], &[]);
}

#[test]
fn names_are_followed_through_the_memo() {
    // Put, taken back in the other order, and by every kind of instruction.
    let pickle =
        [&b"\x80\x04"[..], &text("system"), b"\x94", &text("os"), b"\x9400h\x01h\x00\x93."];
    check(&pickle.concat(), &["os.system"], &[]);
    check(b"S'system'\np5\nS'os'\nq\x0700h\x07g5\n\x93.", &["os.system"], &[]);
    check(b"\x8c\x06systemr\0\0\x01\0\x8c\x02os2j\0\0\x01\0\x93.", &["os.system"], &[]);
    // A place in the memo that is written again names what came last.
    let again = b"\x8c\x04listq\0\x8c\x06systemq\x000\x8c\x02osh\0\x93.";
    check(again, &["os.system"], &[]);
    // `MEMOIZE` counts what is in the memo.
    let counted = b"Nq\x05\x8c\x06system\x9400\x8c\x02osh\x01\x93.";
    check(counted, &["os.system"], &[]);
    check(b"h\0.", &[], &[Problem::Underflow]);
}

#[test]
fn what_is_computed_is_not_trusted() {
    let computed = Problem::ComputedImport;
    // A text that a call made.
    let pickle = b"\x80\x04c__builtin__\nstr\n\x8c\x02os\x85R\x8c\x06system\x93.";
    check(pickle, &["__builtin__.str"], &[computed]);
    // Texts with escapes, which no program writes for names.
    check(b"S'o\\x73'\nS'system'\n\x93.", &[], &[computed]);
    check(b"V\\u006fs\nVsystem\n\x93.", &[], &[computed]);
    check("\u{8c}\u{2}".as_bytes(), &[], &[Problem::Malformed]);
    let foreign = [&[0x8c, 4][..], "öß".as_bytes(), &text("x"), b"\x93."].concat();
    check(&foreign, &[], &[computed]);
    // What was called is not a name.
    let call = b"c__builtin__\nlist\n)R)R.";
    check(call, &["__builtin__.list"], &[Problem::ComputedCall]);
    check(b"N)R.", &[], &[Problem::ComputedCall]);
    // A name of the registry of extensions.
    for pickle in [&b"\x80\x02\x82\x01."[..], b"\x83\x01\0.", b"\x84\x01\0\0\0."] {
        check(pickle, &[], &[Problem::Extension]);
    }
}

#[test]
fn what_changes_an_import_is_not_trusted() {
    let changes = Problem::ChangesImport;
    let slots = b"\x80\x04ccollections\nOrderedDict\nN}\x8c\x0b__setitem__Ns\x86b.";
    check(slots, &["collections.OrderedDict"], &[changes]);
    check(b"ccollections\nOrderedDict\nNNs.", &["collections.OrderedDict"], &[changes]);
    // The state of an instance is its own affair.
    let instance = b"ccollections\nOrderedDict\n)R}b.";
    check(instance, &["collections.OrderedDict"], &[]);
    let hostile = b"\x80\x02cmyclass\nThing\n)\x81}U\x0c__setstate__cos\nsystem\nsb.";
    check(hostile, &["myclass.Thing", "os.system"], &[]);
}

#[test]
fn what_breaks_off_is_not_trusted_but_read_as_far_as_python_would() {
    check(b"", &[], &[Problem::Truncated]);
    check(b"\x80\x04N", &[], &[Problem::Truncated]);
    check(b"cos\nsystem\n(S'id'\ntR\xff", &["os.system"], &[Problem::Malformed]);
    check(b"cos\nsystem\nX\xff\0\0\0", &["os.system"], &[Problem::Truncated]);
    check(b"\x80\x06N.", &[], &[Problem::Protocol]);
    check(b".", &[], &[Problem::Underflow]);
    check(b"N(.", &[], &[Problem::Underflow]);
    check(b"\x85.", &[], &[Problem::Underflow]);
    check(b"NT\xff\xff\xff\xff.", &[], &[Problem::Malformed]);
    check(b"N\x8b\0\0\0\x80.", &[], &[Problem::Malformed]);
    check(b"N\x8e\xff\xff\xff\xff\xff\xff\xff\xff.", &[], &[Problem::Malformed]);
    check(b"g+0\n.", &[], &[Problem::Malformed]);
    check(b"c\xff\nx\n.", &[], &[Problem::Malformed]);
}

#[test]
fn only_the_first_pickle_is_taken() {
    let (report, taken) = walk_by(b"N.cos\nsystem\n.", 100);
    assert!(report.imports.is_empty() && taken == 2);
}

#[test]
fn content_is_passed_over_without_being_read() {
    let mut walker = Walker::new();
    let head = [&b"\x80\x04\x8e"[..], &(1_u64 << 40).to_le_bytes(), b"ab"].concat();
    assert_eq!(walker.feed(&head), head.len());
    assert_eq!(walker.skippable(), (1 << 40) - 2);
    assert_eq!(walker.skip(u64::MAX), (1 << 40) - 2);
    assert_eq!(walker.feed(b".x"), 1);
    assert_eq!(walker.progress(), Progress::Stopped);
    assert_eq!(walker.taken(), (1 << 40) + 12);
    assert!(walker.finish().problems.is_empty());
}

#[test]
fn a_flood_ends_at_a_bound() {
    for flood in [&b"("[..], b"N", b"N2", b"]\x94", b"}", b"\x8c\x01a"] {
        let mut walker = Walker::new();
        let piece = flood.repeat(1 << 16);
        for _ in 0..64 {
            walker.feed(&piece);
        }
        assert_eq!(walker.progress(), Progress::Failed(Problem::TooLarge), "{flood:?}");
    }
    // Tuples in tuples are forgotten before they are deep.
    let mut deep = b"N".to_vec();
    deep.extend(std::iter::repeat_n(0x85, 1 << 20));
    deep.push(b'.');
    assert!(walk(&deep).problems.is_empty());
    let imports = (0..=MAX_IMPORTS).flat_map(|n| format!("ca\nb{n}\n0").into_bytes());
    let report = walk(&imports.chain(*b"N.").collect::<Vec<u8>>());
    assert_eq!((report.imports.len(), &*report.problems), (MAX_IMPORTS, &[Problem::TooLarge][..]));
    let long = "a".repeat(MAX_NAME_BYTES + 1);
    check(format!("c{long}\nb\n.").as_bytes(), &[], &[Problem::TooLarge]);
}

/// Instructions of all kinds but the end.
const INSTRUCTIONS: &[&[u8]] = &[
    b"(",
    b"N",
    b"0",
    b"1",
    b"2",
    b"t",
    b"\x85",
    b"R",
    b"b",
    b"}",
    b"u",
    b"s",
    b"]",
    b"e",
    b"a",
    b"o",
    b"ios\nx\n",
    b"cnumpy\ndtype\n",
    b"\x8c\x02f8",
    b"\x93",
    b"\x94",
    b"h\0",
    b"Q",
    b"\x81",
    b"\x92",
    b"K\x05",
    b"d",
    b"\x8c\x05dtype",
    b"\x8c\x05shape",
    b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n",
    b")",
];
/// Instructions that need nothing and do nothing.
const HARMLESS: &[&[u8]] =
    &[b"N", b"K\x01", b"]", b"}", b")", b"\x8c\x03abc", b"\x88", b"(", b"C\x02.c"];

proptest! {
    #[test]
    fn noise_never_panics(
        noise in prop::collection::vec(any::<u8>(), 0..400),
        piece in 1_usize..50,
    ) {
        let whole = walk_by(&noise, noise.len().max(1));
        prop_assert_eq!(walk_by(&noise, piece), whole);
    }

    #[test]
    fn instructions_in_any_order_never_panic(
        parts in prop::collection::vec(prop::sample::select(INSTRUCTIONS), 0..200),
    ) {
        let report = walk(&parts.concat());
        prop_assert!(!report.problems.is_empty(), "it never says where it ends");
    }

    #[test]
    fn a_harmful_import_is_found_wherever_it_stands(
        before in prop::collection::vec(prop::sample::select(HARMLESS), 0..50),
    ) {
        let report = walk(&[before.concat(), b"cos\nsystem\n.".to_vec()].concat());
        prop_assert!(report.is_dangerous());
    }
}
