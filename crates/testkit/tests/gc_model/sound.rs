//! The protocol as it is: nothing breaks it, in any order of steps.

use stateright::{Checker as _, Model as _};

use crate::model::{Model, Order};
use crate::writer::{Task, Wish};

/// Log 0 names the content and forgets it, while a commit names it in log 1.
pub(crate) fn elsewhere() -> Model {
    let commit = Task { log: 1, wish: Wish::Commit };
    let forget = Task { log: 0, wish: Wish::Forget };
    Model {
        logs: 2,
        has_catalogue: false,
        named_by: Some(0),
        tasks: vec![commit, forget],
        collectors: 1,
        cycles: 1,
        crashes: 1,
        order: Order::CheckFirst,
        believes_index: false,
        mutant: None,
    }
}

/// The same in one log: the commit need not name the content, unless it is forgotten first.
pub(crate) fn together() -> Model {
    let [commit, forget] = [Wish::Commit, Wish::Forget].map(|wish| Task { log: 0, wish });
    Model { logs: 1, tasks: vec![commit, forget], ..elsewhere() }
}

/// Nothing names the content, which is there, as a client knows that commits it.
pub(crate) fn garbage() -> Model {
    let commit = Task { log: 0, wish: Wish::Commit };
    Model { logs: 1, named_by: None, tasks: vec![commit], ..elsewhere() }
}

/// Two commits in one log, while the other forgets.
fn two_writers() -> Model {
    let [first, second] = [1, 1].map(|log| Task { log, wish: Wish::Commit });
    let forget = Task { log: 0, wish: Wish::Forget };
    Model { tasks: vec![first, second, forget], crashes: 0, ..elsewhere() }
}

/// Repo 1 is made, and a commit goes there, whose writer read the epoch at any time before.
pub(crate) fn new_repo() -> Model {
    let create = Task { log: 0, wish: Wish::Create(1) };
    let commit = Task { log: 1, wish: Wish::Commit };
    let tasks = vec![commit, create];
    Model { logs: 2, has_catalogue: true, named_by: None, tasks, ..elsewhere() }
}

/// Repo 1 has the content and is deleted, repo 2 is made, and a commit goes there.
fn catalogue() -> Model {
    let delete = Task { log: 0, wish: Wish::Delete(1) };
    let create = Task { log: 0, wish: Wish::Create(2) };
    let commit = Task { log: 2, wish: Wish::Commit };
    let tasks = vec![commit, delete, create];
    Model { logs: 3, has_catalogue: true, named_by: Some(1), tasks, crashes: 0, ..elsewhere() }
}

fn check(model: Model) -> String {
    let checker = model.checker().spawn_bfs().join();
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    checker.assert_properties();
    format!("holds in {states} states, {depth} deep")
}

macro_rules! holds {
    ($($name:ident: $model:expr;)*) => {
        $(#[test]
        fn $name() {
            println!("{}", check($model));
        })*
    };
}

const TAIL_FIRST: Order = Order::TailFirst;

holds! {
    one_cycle: elsewhere();
    one_log_two_cycles: Model { cycles: 2, ..together() };
    garbage_two_cycles: Model { cycles: 2, ..garbage() };
    tail_first_one_cycle: Model { order: TAIL_FIRST, ..elsewhere() };
    tail_first_one_log: Model { order: TAIL_FIRST, ..together() };
    tail_first_two_cycles: Model { order: TAIL_FIRST, cycles: 2, ..garbage() };
    two_commits: two_writers();
    two_collectors: Model { collectors: 2, crashes: 0, ..elsewhere() };
    two_collectors_two_cycles: Model { collectors: 2, cycles: 2, crashes: 0, ..garbage() };
    two_collectors_of_which_one_crashes: Model { collectors: 2, ..garbage() };
    a_repo_is_made: new_repo();
    a_repo_is_made_tail_first: Model { order: TAIL_FIRST, ..new_repo() };
    a_repo_is_made_and_another_deleted: catalogue();
    an_index_that_hears_of_no_deletion: Model { believes_index: true, ..elsewhere() };
}
