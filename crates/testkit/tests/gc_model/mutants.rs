//! The protocol less one rule: each rule is needed, and the model can tell.

use stateright::{Checker as _, HasDiscoveries, Model as _};

use crate::model::{Model, Mutant, ONCE, ORDERED, PRESENT};
use crate::sound::{elsewhere, garbage, new_repo, together};

/// How these properties are broken, step by step. The search goes by length, so that no way is much
/// shorter.
fn counterexamples(model: Model, properties: &[&'static str]) -> String {
    let all = HasDiscoveries::AllOf(properties.iter().copied().collect());
    let checker = model.checker().finish_when(all).spawn_bfs().join();
    let mut told = String::new();
    for property in properties {
        let path = checker.discovery(property).expect(property).into_actions();
        told += &format!("not so after {} steps: {property}\n", path.len());
        for act in path {
            told += &format!("    {act:?}\n");
        }
    }
    told
}

macro_rules! breaks {
    ($($name:ident: $mutant:ident, $model:expr, $properties:expr;)*) => {
        $(#[test]
        fn $name() {
            let model = Model { mutant: Some(Mutant::$mutant), ..$model };
            println!("{}", counterexamples(model, &$properties));
        })*
    };
}

breaks! {
    without_fences: NoFence, elsewhere(), [PRESENT];
    no_check_after_a_fence: NoRecheck, elsewhere(), [PRESENT];
    only_the_newest_list: NewestListOnly, Model { cycles: 2, ..elsewhere() }, [PRESENT];
    bare_hashes_as_names: BareNames, elsewhere(), [PRESENT];
    no_second_mark: NoSecondMark, elsewhere(), [PRESENT];
    a_list_of_its_own: ListNotAdopted, elsewhere(), [PRESENT];
    log_slots_are_deleted: LogsCut, garbage(), [ONCE, PRESENT];
    an_epoch_before_its_list: EpochBeforeList, elsewhere(), [PRESENT];
    what_is_new_is_decided_once: NewDecidedOnce, together(), [PRESENT];
    the_epoch_is_read_again_after_the_check: EpochReadAgain, elsewhere(), [PRESENT];
    an_old_epoch_in_an_entry: EpochKept, elsewhere(), [ORDERED];
    a_retry_does_not_look_for_itself: OperationForgotten, elsewhere(), [ONCE];
    a_new_log_without_the_epoch_of_its_creation: NoFloor, new_repo(), [PRESENT];
}
