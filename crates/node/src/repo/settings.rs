//! A repo's settings.

use ballast_format::log::{CatalogueChange, Gating, Visibility};

use crate::access::{Access, Caller, Repo};
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::state::ledger::New;

/// The longest line about a repo.
const MAX_DESCRIPTION_BYTES: usize = 2000;

/// What to change; what is absent stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Who may see it.
    pub visibility: Option<Visibility>,
    /// Whether readers must ask.
    pub gating: Option<Gating>,
    /// A line about it.
    pub description: Option<String>,
    /// Whether nobody may open discussions.
    pub discussions_disabled: Option<bool>,
    /// Whether it is closed; only administrators of the hub may say.
    pub disabled: Option<bool>,
}

impl Hub {
    /// Changes a repo's settings.
    pub async fn change_settings(
        &self,
        caller: &Caller,
        repo: &Repo,
        settings: &Settings,
    ) -> Result<()> {
        self.repo_by_id(caller, repo.id(), Access::Admin)?;
        if settings.disabled.is_some() && !caller.is_admin() {
            return Err(Error::denied("only an administrator of the hub may close a repo"));
        }
        let long = settings.description.as_ref().map_or(0, String::len);
        if long > MAX_DESCRIPTION_BYTES {
            let (what, size) = ("the description".to_owned(), long as u64);
            return Err(Error::TooLarge { what, size, limit: MAX_DESCRIPTION_BYTES as u64 });
        }
        if *settings == Settings::default() {
            return Ok(());
        }
        let id = repo.id();
        let change = CatalogueChange::RepoSettings {
            id,
            visibility: settings.visibility,
            gating: settings.gating,
            description: settings.description.clone(),
            discussions_disabled: settings.discussions_disabled,
            disabled: settings.disabled,
        };
        self.catalogue
            .append(self, New::by(caller.user_id()), |state| {
                self.confirm(caller, state.by_id(&id), Access::Admin)?;
                Ok(vec![change.clone()])
            })
            .await
    }
}
