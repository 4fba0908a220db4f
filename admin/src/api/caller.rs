//! Who calls, and what that key may do.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use control_store::accounts::AccountId;
use control_store::ids::{ProjectId, Role};
use control_store::secret::{Secret, api_key_hash};
use control_store::snapshot::{Key, Scope};

use super::config::Tier;
use super::state::{AppState, Shared};
use crate::app::failure::{Failure, Outcome};

/// Whoever sent a valid API key.
pub(super) struct Caller {
    pub(super) key: Arc<Key>,
    pub(super) account: AccountId,
    pub(super) tier: Tier,
}

/// The key that a request names.
pub(super) fn find_key(headers: &HeaderMap, state: &Shared) -> Outcome<Arc<Key>> {
    let header = headers.get(AUTHORIZATION).ok_or(Failure::AuthRequired)?;
    let text = header.to_str().map_err(|_| Failure::BadKey)?.trim();
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Failure::BadKey);
    }
    // Looked up by hash: how long it takes tells nothing of the key.
    let hash = api_key_hash(token.trim());
    let snapshot = state.store.snapshot().load();
    snapshot.api_keys.get(&hash).cloned().ok_or(Failure::BadKey)
}

impl FromRequestParts<AppState> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Outcome<Self> {
        let key = find_key(&parts.headers, state)?;
        let owner = state.owner(&key.project).await?;
        state
            .limits
            .project(Instant::now(), &key.project, owner.tier.requests_per_minute)?;
        if let Some(who) = parts.extensions.get::<super::middleware::Who>() {
            who.set(&key.project, key.id, owner.account);
        }
        Ok(Self {
            key,
            account: owner.account,
            tier: owner.tier,
        })
    }
}

impl Caller {
    pub(super) fn project(&self) -> &ProjectId {
        &self.key.project
    }

    /// Refuses a key whose role is lower.
    pub(super) fn role(&self, needs: Role) -> Outcome<()> {
        if self.key.role >= needs {
            return Ok(());
        }
        Err(Failure::RoleRequired {
            needs,
            has: self.key.role,
        })
    }

    /// Refuses a key that does not reach the whole project.
    pub(super) fn whole_project(&self) -> Outcome<()> {
        match self.key.scope {
            Scope::Project => Ok(()),
            Scope::Workspaces(_) | Scope::Tenants(_) => Err(Failure::ScopeDenied(
                "This needs an API key for the whole project".into(),
            )),
        }
    }

    /// A change to the project itself.
    pub(super) fn project_admin(&self) -> Outcome<()> {
        self.role(Role::Admin)?;
        self.whole_project()
    }

    /// Whether the key reaches that workspace and its blueprint.
    pub(super) fn sees_workspace(&self, name: &str) -> bool {
        match &self.key.scope {
            Scope::Project => true,
            Scope::Workspaces(names) => names.iter().any(|it| it.as_str() == name),
            Scope::Tenants(_) => false,
        }
    }

    /// Refuses a key that does not reach that workspace, whether there is one or not.
    pub(super) fn workspace(&self, name: &str, needs: Role) -> Outcome<()> {
        if !self.sees_workspace(name) {
            return Err(Failure::ScopeDenied(format!(
                "This API key does not reach workspace '{name}'"
            )));
        }
        self.role(needs)
    }

    /// Whether the key reaches that tenant's database of that blueprint.
    pub(super) fn sees_database(&self, tenant: &str, blueprint: &str) -> bool {
        match &self.key.scope {
            Scope::Project => true,
            Scope::Workspaces(names) => names.iter().any(|it| it.as_str() == blueprint),
            Scope::Tenants(ids) => ids.iter().any(|it| it.as_str() == tenant),
        }
    }

    /// Refuses a key that does not reach that tenant, before anything tells whether there is one.
    pub(super) fn tenant(&self, tenant: &str, needs: Role) -> Outcome<()> {
        if let Scope::Tenants(ids) = &self.key.scope
            && !ids.iter().any(|it| it.as_str() == tenant)
        {
            return Err(tenant_denied(tenant));
        }
        self.role(needs)
    }

    /// The proxy password that belongs to this key.
    pub(super) async fn proxy_password(&self, state: &AppState) -> Outcome<Secret> {
        let key = self.key.id;
        state.store(move |store| store.proxy_password(key)).await
    }
}

pub(super) fn tenant_denied(tenant: &str) -> Failure {
    Failure::ScopeDenied(format!("This API key does not reach tenant '{tenant}'"))
}
