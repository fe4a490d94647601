//! Every edit that a phone was told of, and what must be known of each once all is at rest:
//! it is in the log, once; or it lost and stands among the conflicts; or it waits for the app,
//! with a reason.

use std::collections::{BTreeMap, HashMap, HashSet};

use syncline::client::{EntryState, Outcome};

use super::phone::Phone;
use super::state::ServerState;

/// An edit that was queued.
#[derive(Clone, Debug)]
pub struct Made {
    pub phone: usize,
    pub collection: String,
    pub record: String,
    /// A value that occurs nowhere else.
    pub mark: String,
    /// What it adds to a counter.
    pub adds: i64,
    /// The id that the call gave.
    pub id: String,
    /// In which history it was made.
    pub era: u64,
}

#[derive(Debug, Default)]
pub struct Ledger {
    pub made: Vec<Made>,
    /// Marks of edits that were refused by their calls, with why.
    pub refused: Vec<(String, String)>,
    /// What was queued anew is known by another id.
    pub renamed: HashMap<String, String>,
    pub discarded: HashSet<String>,
    pub era: u64,
}

/// What a run makes possible.
#[derive(Clone, Copy, Debug, Default)]
pub struct Possible {
    /// What bob has sent may be parked although it took effect: he was shown out, and could not
    /// ask for the answer.
    pub parked_blindly: bool,
    /// The log may have been shortened before an answer was asked for again: the server knows
    /// the sequence then, and neither the edit nor what became of it.
    pub answers_forgotten: bool,
}

impl Ledger {
    /// Checks every edit; tells how many went which way.
    pub async fn check(
        &self,
        phones: &[Phone],
        server: &ServerState,
        possible: Possible,
    ) -> BTreeMap<String, usize> {
        let mut fates = BTreeMap::new();
        for (id, count) in &server.log {
            assert_eq!(*count, 1, "{id} took effect {count} times");
        }
        for made in &self.made {
            let id = self.last_name(&made.id);
            let outcome = phones[made.phone].space.outcome(id).await.unwrap();
            let bobs = phones[made.phone].user == "bob";
            let possible = Possible { parked_blindly: bobs && possible.parked_blindly, ..possible };
            let fate = self.fate(made, id, outcome.as_ref(), server, possible);
            *fates.entry(fate).or_default() += 1;
        }
        for (mark, why) in &self.refused {
            let text = server.texts.iter().find(|text| text.contains(mark));
            assert!(text.is_none(), "{mark} was refused ({why}), and is there: {text:?}");
        }
        fates
    }

    fn last_name<'a>(&'a self, id: &'a str) -> &'a str {
        let mut id = id;
        while let Some(next) = self.renamed.get(id).filter(|next| *next != id) {
            id = next;
        }
        id
    }

    fn fate(
        &self,
        made: &Made,
        id: &str,
        outcome: Option<&Outcome>,
        server: &ServerState,
        possible: Possible,
    ) -> String {
        let there = server.log.contains_key(id);
        let state = outcome.map(|outcome| outcome.state);
        let told = || format!("{} {made:?} ({id}): {outcome:?}, in the log: {there}", made.mark);
        match state {
            Some(EntryState::Pending | EntryState::Syncing) => panic!("still waits: {}", told()),
            Some(EntryState::Failed) => {
                let why = outcome.and_then(|it| it.trouble.clone()).unwrap_or_default();
                assert!(!why.message.is_empty(), "parked without a reason: {}", told());
                let forgotten = possible.answers_forgotten && why.reason == "OUTCOME_UNKNOWN";
                let no_access = ["SPACE_NOT_FOUND", "PERMISSION_DENIED"].contains(&&*why.reason);
                let blindly = possible.parked_blindly && no_access || forgotten;
                assert!(!there || blindly, "parked, and took effect: {}", told());
                return format!("parked: {}", why.reason);
            }
            _ if made.era < self.era => return "of another history".into(),
            None => {
                let discarded = self.discarded.contains(id);
                assert!(there || discarded, "lost: {}", told());
                assert!(!there || !discarded || possible.parked_blindly, "both: {}", told());
            }
            Some(EntryState::Applied | EntryState::Merged) => {
                assert!(there, "said to be applied, and is not there: {}", told());
            }
            Some(EntryState::Superseded | EntryState::Conflict) => {
                assert!(!there, "lost, and took effect: {}", told());
                assert!(server.conflicts.contains(id), "lost in silence: {}", told());
            }
        }
        state.map_or("done", EntryState::as_str).into()
    }

    /// What a counter is to be: the sum of the increments that took effect.
    pub fn sum(&self, record: &str, server: &ServerState) -> i64 {
        let took_effect = |made: &&Made| server.log.contains_key(self.last_name(&made.id));
        let made = self.made.iter().filter(|it| it.record == record && it.adds != 0);
        made.filter(took_effect).map(|it| it.adds).sum()
    }
}
