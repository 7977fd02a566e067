//! Moving a repo's home, and taking it over after a loss: what a person decides.

use ballast_format::log::{Head, RepoChange};

use super::follow::homed_here;
use crate::access::{Caller, Repo};
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::state::homing::{Away, Standing};
use crate::state::ledger::New;

/// What came of taking over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promoted {
    /// The term in which this region is the home.
    pub term: u64,
    /// The last entry of the home before that is here: what it acknowledged since is not.
    pub behind: Head,
}

impl Hub {
    /// Gives a repo's home to another region, which takes it when all of it is there; the term
    /// there. Until then nobody can write.
    pub async fn move_home(&self, caller: &Caller, repo: &Repo, to: &Away) -> Result<u64> {
        only_admins(caller)?;
        if self.settings().region.as_ref().is_some_and(|here| here.region == to.region) {
            return Err(Error::invalid(format!("`{}` is this region", to.region)));
        }
        let id = repo.id();
        let term = self.homing(id).term + 1;
        let (home, address) = (to.region.clone(), to.address.clone());
        let moved = RepoChange::HomeMoved { home, address, term };
        self.append_repo(repo, caller.user_id(), &[], |_| {
            only_admins(&self.again(caller)?)?;
            if self.homing(id).term + 1 != term {
                return Err(Error::Conflict { reason: "its home was moved just now".to_owned() });
            }
            Ok(vec![moved.clone()])
        })
        .await?;
        Ok(term)
    }

    /// Makes this region the home of a repo that it follows, whatever its home does. What that has
    /// acknowledged and has not come here is not in the repo any more; when it is back, it follows
    /// this region, and keeps that in a repo of its own.
    pub async fn promote(&self, caller: &Caller, repo: &Repo) -> Result<Promoted> {
        only_admins(caller)?;
        let here = self.settings().region.clone().ok_or_else(no_region)?;
        let id = repo.id();
        let (tail, standing) = self.place_of(id).await?;
        if let Standing::Home { term, .. } = standing {
            let reason = format!("this region is the home of `{}`, in term {term}", repo.name());
            return Err(Error::invalid(reason));
        }
        let moved = self.newest_state(id).await?.home.as_ref().map_or(0, |moved| moved.term);
        let behind = Head { number: tail.number, hash: tail.hash };
        let term = self.homing(id).term.max(moved) + 1;
        self.catalogue
            .append(self, New::by(caller.user_id()), |state| {
                only_admins(&self.again(caller)?)?;
                let record = state.by_id(&id).ok_or(Error::RepoNotFound)?;
                let homing = &record.homing;
                if homing.term >= term || (homing.away.is_some() && homing.known != behind) {
                    let reason = "its home changed just now: look again".to_owned();
                    return Err(Error::Conflict { reason });
                }
                Ok(vec![homed_here(id, term, behind)])
            })
            .await?;
        let (home, address) = (here.region, here.address);
        let moved = RepoChange::HomeMoved { home, address, term };
        self.append_repo(repo, caller.user_id(), &[], |state| {
            let is_said = state.home.as_ref().is_some_and(|moved| moved.term >= term);
            Ok(if is_said { Vec::new() } else { vec![moved.clone()] })
        })
        .await?;
        Ok(Promoted { term, behind })
    }
}

fn only_admins(caller: &Caller) -> Result<()> {
    if caller.is_admin() {
        return Ok(());
    }
    Err(Error::denied("only an administrator of the hub may say which region is a repo's home"))
}

fn no_region() -> Error {
    Error::invalid("this hub does not know which region it is\nhint: set `region.name`")
}
