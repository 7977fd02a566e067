//! Tokens. A secret is shown once; what is stored is a keyed hash of it.

use std::fmt;
use std::sync::Arc;

use ballast_format::id::{TokenId, UserId};
use ballast_format::log::{AccountChange, TokenRole};
use ballast_store::env::{Env, random_bytes};

use super::{check_admin, check_text, confirm_admin, confirm_user};
use crate::access::Caller;
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::state::accounts::{AccountsState, Node, Token, User};
use crate::state::ledger::New;

/// What a secret begins with; leak scanners and clients look for it.
const PREFIX: &str = "hf_";
/// Letters of a secret behind the prefix: 256 random bits.
const RANDOM_LETTERS: usize = 43;
/// Letters at the end that are computed from the others, so that a scanner is sure.
const CHECK_LETTERS: usize = 6;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Tokens that one user may have.
const MAX_TOKENS: usize = 1000;
/// Repos and namespaces that one token may name.
const MAX_SCOPES: usize = 100;

/// A token's secret, before it is shown.
pub(super) struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

impl Secret {
    pub(super) fn draw(env: &dyn Env) -> Self {
        let mut text = PREFIX.to_owned();
        while text.len() < PREFIX.len() + RANDOM_LETTERS {
            let bytes: [u8; 64] = random_bytes(env);
            // Bytes over the largest multiple of 62 are drawn again, so that letters are even.
            let even = bytes.into_iter().filter(|byte| *byte < 248);
            let missing = PREFIX.len() + RANDOM_LETTERS - text.len();
            let letters = even.map(|byte| char::from(ALPHABET[usize::from(byte % 62)]));
            text.extend(letters.take(missing));
        }
        let check = blake3::hash(text.as_bytes());
        let letters = check.as_bytes().iter().take(CHECK_LETTERS);
        text.extend(letters.map(|byte| char::from(ALPHABET[usize::from(byte % 62)])));
        Self(text)
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }
}

/// A token to make.
#[derive(Clone, Debug)]
pub struct NewToken<'a> {
    /// What it is for.
    pub name: &'a str,
    /// What it may do.
    pub role: TokenRole,
    /// When it ends, in unix milliseconds.
    pub expires_ms: Option<u64>,
}

impl NewToken<'_> {
    pub(super) fn change(&self, hub: &Hub, user: UserId, secret: &Secret) -> AccountChange {
        let id = TokenId::from_bytes(random_bytes(hub.env().as_ref()));
        self.change_as(hub, id, user, secret)
    }

    /// The same for a token whose id is drawn already.
    pub(super) fn change_as(
        &self,
        hub: &Hub,
        id: TokenId,
        user: UserId,
        secret: &Secret,
    ) -> AccountChange {
        AccountChange::TokenCreated {
            id,
            user,
            name: self.name.to_owned(),
            hash: hub.token_hash(&secret.0),
            role: self.role.clone(),
            expires_ms: self.expires_ms,
        }
    }
}

/// A token and whose it is.
#[derive(Clone, Debug)]
pub struct TokenView {
    /// The token.
    pub token: Arc<Token>,
    /// Its user.
    pub user: Arc<User>,
}

impl Hub {
    /// The keyed hash by which a secret is looked up.
    pub(crate) fn token_hash(&self, secret: &str) -> [u8; 32] {
        *blake3::keyed_hash(&self.secrets().key("tokens"), secret.as_bytes()).as_bytes()
    }

    /// Makes a token; users may for themselves, administrators for everybody. The secret is
    /// returned this once.
    pub async fn create_token(
        &self,
        caller: &Caller,
        user: &str,
        token: &NewToken<'_>,
    ) -> Result<(TokenId, String)> {
        check_text("a token's name", token.name)?;
        if let TokenRole::FineGrained { scopes } = &token.role
            && !(1..=MAX_SCOPES).contains(&scopes.len())
        {
            let reason = format!("a token has 1 to {MAX_SCOPES} scopes");
            return Err(Error::invalid(reason));
        }
        let by = caller.user()?;
        let own = by.name.eq_ignore_ascii_case(user) && by.role == TokenRole::Write;
        if !own {
            check_admin(caller)?;
        }
        let user = self.user_of_name(user)?;
        if token.expires_ms.is_some_and(|end| end <= self.env().now_ms()) {
            return Err(Error::invalid("the token would have ended already"));
        }
        let secret = Secret::draw(self.env().as_ref());
        let change = token.change(self, user.id, &secret);
        let AccountChange::TokenCreated { id, .. } = change else {
            return Err(Error::internal("a new token is not a new token"));
        };
        self.accounts
            .append(self, New::by(Some(by.user)), |state| {
                if own {
                    confirm_user(state, caller)?;
                } else {
                    confirm_admin(state, caller)?;
                }
                let tokens = state.tokens().filter(|token| token.user == user.id).count();
                // Those of nodes have a limit of their own.
                let of_nodes = |node: &&Arc<Node>| node.user == user.id && node.joined.is_some();
                let of_nodes = state.nodes().filter(of_nodes).count();
                if tokens.saturating_sub(of_nodes) >= MAX_TOKENS {
                    let reason = format!("`{}` has {MAX_TOKENS} tokens; revoke some", user.name);
                    return Err(Error::invalid(reason));
                }
                Ok(vec![change.clone()])
            })
            .await?;
        Ok((id, secret.into_text()))
    }

    /// Tokens of a user, or of all; users see their own, administrators everybody's.
    pub fn list_tokens(&self, caller: &Caller, user: Option<&str>) -> Result<Vec<TokenView>> {
        let by = caller.user()?;
        // Scopes name repos: a token for some of them does not show the others.
        let may_all = !matches!(by.role, TokenRole::FineGrained { .. });
        let own = may_all && user.is_some_and(|user| by.name.eq_ignore_ascii_case(user));
        if !own {
            check_admin(caller)?;
        }
        let only = user.map(|user| self.user_of_name(user)).transpose()?.map(|user| user.id);
        let mut found: Vec<TokenView> = self.accounts.read(|state| {
            let of = |token: &&Arc<Token>| only.is_none_or(|id| token.user == id);
            let view = |token: &Arc<Token>| {
                Some(TokenView { token: Arc::clone(token), user: state.user(&token.user)? })
            };
            state.tokens().filter(of).filter_map(view).collect()
        });
        found.sort_by_key(|view| (view.user.name.folded(), view.token.created_ms, view.token.id));
        Ok(found)
    }

    /// Ends a token at once. Every token may end itself; those that may write end all of their
    /// user's, administrators everybody's.
    pub async fn revoke_token(&self, caller: &Caller, id: TokenId) -> Result<()> {
        let by = caller.user()?;
        let missing = || Error::NotFound { what: format!("the token `{id}`") };
        let may = |state: &AccountsState| {
            let token = state.token(&id).ok_or_else(missing)?;
            let own = token.user == by.user;
            if caller.is_admin() || id == by.token || (own && by.role == TokenRole::Write) {
                return Ok(());
            }
            Err(if own { Error::denied("your token may not revoke others") } else { missing() })
        };
        self.accounts.read(may)?;
        self.accounts
            .append(self, New::by(Some(by.user)), |state| {
                may(state)?;
                confirm_user(state, caller)?;
                Ok(vec![AccountChange::TokenRevoked { id }])
            })
            .await
    }

    /// The token by which the caller came.
    pub fn token_of(&self, caller: &Caller) -> Result<Arc<Token>> {
        let by = caller.user()?;
        self.accounts.read(|state| state.token(&by.token)).ok_or(Error::BadToken)
    }
}
