//! One suite over both engines; a sorted map that does the obvious is the model.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::memory::Memory;
use super::sled::Sled;
use super::*;

/// Runs a case on each engine, each time on an empty index.
fn on_both(case: impl Fn(&dyn Index)) {
    case(&Memory::new());
    let folder = tempfile::tempdir().expect("a temporary folder");
    case(&Sled::open(folder.path()).expect("an empty folder opens"));
}

fn rows(index: &dyn Index, table: Table, prefix: &[u8]) -> Vec<Row> {
    index.scan(table, prefix, None, 1000).expect("scan")
}

#[test]
fn the_last_word_of_a_batch_counts() {
    on_both(|index| {
        let mut batch = Batch::new();
        batch.put(Table::Meta, *b"a", *b"1").put(Table::Meta, *b"a", *b"2");
        batch.put(Table::Meta, *b"b", *b"1").delete(Table::Meta, *b"b");
        batch.delete(Table::Meta, *b"c").put(Table::Meta, *b"c", *b"3");
        index.apply(batch).expect("apply");
        let wanted = [(b"a".to_vec(), b"2".to_vec()), (b"c".to_vec(), b"3".to_vec())];
        assert_eq!(rows(index, Table::Meta, b""), wanted);
    });
}

#[test]
fn tables_do_not_see_each_other() {
    on_both(|index| {
        let mut batch = Batch::new();
        for table in Table::ALL {
            batch.put(table, *b"k", [table.tag()]);
        }
        index.apply(batch).expect("apply");
        for table in Table::ALL {
            assert_eq!(rows(index, table, b""), [(b"k".to_vec(), vec![table.tag()])]);
        }
        let mut batch = Batch::new();
        batch.delete(Table::Object, *b"k");
        index.apply(batch).expect("apply");
        let left = Table::ALL.iter().filter(|table| !rows(index, **table, b"").is_empty());
        assert_eq!(left.count(), Table::ALL.len() - 1);
    });
}

#[test]
fn tags_on_disk_differ() {
    let mut tags = Table::ALL.map(Table::tag);
    tags.sort_unstable();
    assert!(tags.windows(2).all(|pair| pair[0] < pair[1]));
}

#[test]
fn a_scan_ends_with_its_prefix_even_at_the_end_of_the_space() {
    on_both(|index| {
        let mut batch = Batch::new();
        for key in [vec![0xfe], vec![0xff], vec![0xff, 0], vec![0xff, 0xff], vec![0xff, 0xff, 1]] {
            batch.put(Table::Copy, key, [1]);
        }
        batch.put(Table::Fact, [0xff, 0xff], [2]);
        index.apply(batch).expect("apply");
        assert_eq!(rows(index, Table::Copy, &[0xff, 0xff]).len(), 2);
        assert_eq!(rows(index, Table::Copy, &[0xff]).len(), 4);
    });
}

#[test]
fn pages_cover_everything_once() {
    on_both(|index| {
        let mut batch = Batch::new();
        for i in 0..100_u8 {
            batch.put(Table::Log, [7, i], [i]).put(Table::Log, [8, i], [i]);
        }
        index.apply(batch).expect("apply");
        let mut seen = Vec::new();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = index.scan(Table::Log, &[7], after.as_deref(), 7).expect("scan");
            let Some((last, _)) = page.last() else { break };
            assert!(page.len() <= 7);
            after = Some(last.clone());
            seen.extend(page.into_iter().map(|(_, value)| value[0]));
        }
        assert_eq!(seen, (0..100).collect::<Vec<u8>>());
    });
}

#[test]
fn a_large_batch_is_seen_whole_or_not_at_all() {
    const ROWS: u16 = 1000;
    on_both(|index| {
        let state = |value: u8| {
            let mut batch = Batch::new();
            for row in 0..ROWS {
                batch.put(Table::Object, row.to_be_bytes(), [value]);
            }
            batch
        };
        index.apply(state(0)).expect("apply");
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for value in 1..=20 {
                    index.apply(state(value)).expect("apply");
                }
            });
            while !writer.is_finished() {
                let seen = rows(index, Table::Object, b"");
                assert_eq!(seen.len(), usize::from(ROWS));
                assert!(seen.iter().all(|(_, value)| *value == seen[0].1), "parts of two batches");
            }
        });
    });
}

#[test]
fn an_endless_key_is_refused_and_changes_nothing() {
    on_both(|index| {
        let mut batch = Batch::new();
        batch.put(Table::Meta, *b"a", *b"1").put(Table::Meta, vec![0; MAX_KEY_BYTES + 1], *b"1");
        assert!(matches!(index.apply(batch), Err(Error::Invalid { .. })));
        assert_eq!(index.get(Table::Meta, b"a").expect("get"), None);
    });
}

type Model = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

#[derive(Clone, Debug)]
enum Step {
    Apply(Vec<(Table, Vec<u8>, Option<Vec<u8>>)>),
    Get(Table, Vec<u8>),
    Scan { table: Table, prefix: Vec<u8>, after: Option<Vec<u8>>, limit: usize },
    Flush,
}

fn any_table() -> impl Strategy<Value = Table> {
    prop::sample::select(vec![Table::Meta, Table::Object, Table::Tally])
}

/// Few letters, so that keys meet often.
fn any_key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(vec![0, 1, 0xff]), 0..4)
}

fn any_step() -> impl Strategy<Value = Step> {
    let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..40));
    let change = (any_table(), any_key(), value);
    let limit = prop_oneof![0..4_usize, Just(1000)];
    prop_oneof![
        4 => prop::collection::vec(change, 1..12).prop_map(Step::Apply),
        3 => (any_table(), any_key()).prop_map(|(table, key)| Step::Get(table, key)),
        4 => (any_table(), any_key(), prop::option::of(any_key()), limit).prop_map(
            |(table, prefix, after, limit)| Step::Scan { table, prefix, after, limit }
        ),
        1 => Just(Step::Flush),
    ]
}

fn follow(
    index: &dyn Index,
    model: &mut Model,
    step: Step,
) -> std::result::Result<(), TestCaseError> {
    match step {
        Step::Apply(changes) => {
            let mut batch = Batch::new();
            for (table, key, value) in changes {
                if let Some(value) = value {
                    batch.put(table, key.clone(), value.clone());
                    model.insert((table, key), value);
                } else {
                    batch.delete(table, key.clone());
                    model.remove(&(table, key));
                }
            }
            index.apply(batch).expect("apply");
        }
        Step::Get(table, key) => {
            let found = index.get(table, &key).expect("get");
            prop_assert_eq!(found.as_ref(), model.get(&(table, key)));
        }
        Step::Scan { table, prefix, after, limit } => {
            let wanted: Vec<Row> = model
                .iter()
                .filter(|((of, key), _)| {
                    *of == table
                        && key.starts_with(&prefix)
                        && after.as_ref().is_none_or(|after| key > after)
                })
                .map(|((_, key), value)| (key.clone(), value.clone()))
                .take(limit)
                .collect();
            prop_assert_eq!(
                index.scan(table, &prefix, after.as_deref(), limit).expect("scan"),
                wanted
            );
        }
        Step::Flush => index.flush().expect("flush"),
    }
    Ok(())
}

proptest! {
    #[test]
    fn memory_does_what_the_model_does(steps in prop::collection::vec(any_step(), 0..60)) {
        let (index, mut model) = (Memory::new(), Model::new());
        for step in steps {
            follow(&index, &mut model, step)?;
        }
    }
}

proptest! {
    // Each case opens a database on disk.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn sled_does_what_the_model_does(steps in prop::collection::vec(any_step(), 0..60)) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut model = Model::new();
        let index = Sled::open(folder.path()).expect("an empty folder opens");
        for step in steps {
            follow(&index, &mut model, step)?;
        }
    }
}
