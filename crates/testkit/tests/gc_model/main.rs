//! The protocol of commits and garbage collection (ADR 3, ADR 4), checked as a model: every order
//! in which its steps can happen is tried, with crashes, and with requests that land late or never.
//!
//! - `store`: what is in the object store, and what is on its way to it
//! - `log`: slots that are put if absent; which links to the content a log's fold has
//! - `writer`: one task, one entry
//! - `collector`: mark, condemn, fence, mark again, sweep, done
//! - `model`: who takes part, and the properties
//! - `sound`: the protocol holds; `mutants`: less one rule, it does not
//!
//! **What is kept.** While a repo lives, what its log names stays reachable. A commit names what
//! the log's fold has no link to, after the check; what the fold links already it need not name,
//! nor check. A forgetting entry removes a link, and a later commit has to name the content anew.
//! So the collector goes by links (`Log::names`), and the property by what commits need
//! (`Log::needs`): that the two agree is part of what is checked.
//!
//! **Two orders.** `CheckFirst` is the protocol as it is written down. `TailFirst` finds the tail,
//! takes the newest epoch, checks, and puts the entry behind that tail; it needs no second look, as
//! the put fails if the log was fenced meanwhile.
//!
//! **What the model leaves out, and why it may.** There is one content: entries name several, but
//! each is checked by itself before the entry is put, and the others are time that passes. Ages,
//! waits and pins only make lists shorter, and a collector may condemn any part of what it found
//! unreachable. Copying a condemned copy and uploading again are one step. `gc/<g>.done` never
//! lands late: all it does is to allow the next cycle. Listings may miss copies, and in one
//! configuration may show copies that are long gone.
//!
//! **What it finds that is easily got wrong.** A log without entries has no tail with an epoch: for
//! its first entry the epoch of the repo's creation has to count, or a writer that slept since
//! before the fence commits unchecked (`NoFloor`). An entry's epoch is the one that its check went
//! by, never a later one (`EpochReadAgain`). What an entry has to name depends on the tail that it
//! follows (`NewDecidedOnce`). A collector goes by the list that is stored, not by the one that it
//! sent (`ListNotAdopted`).
//!
//! These held too, and are too large for every run (states): two cycles and a crash over two logs
//! 1,312,500, the same in one log with `TailFirst` 849,000; two commits, a crash and no forgetting
//! in one log 609,301, in two logs 1,147,161; the catalogue's case with a crash 768,993.

mod collector;
mod log;
mod model;
mod mutants;
mod sound;
mod store;
mod writer;
