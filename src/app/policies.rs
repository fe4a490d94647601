//! The policies, as this replica knows them.

use std::sync::Arc;

use crate::domain::PolicySet;

#[derive(Debug, Default)]
pub(super) struct Policies(Arc<PolicySet>);

impl Policies {
    pub(super) fn current(&self) -> Arc<PolicySet> {
        Arc::clone(&self.0)
    }
}
