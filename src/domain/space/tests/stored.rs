//! A model of what a store holds of one space, with every constraint that a
//! database has, and of how a committer uses it.

use super::*;

/// What a store would hold of one space.
#[derive(Clone, Debug, Default)]
pub(super) struct Stored {
    pub(super) rules: Rules,
    pub(super) head: Revision,
    pub(super) conflict_number: i64,
    pub(super) records: HashMap<RecordKey, Arc<Record>>,
    pub(super) changes: Vec<(Arc<Change>, Fingerprint)>,
    pub(super) conflicts: HashMap<MutationId, LoggedConflict>,
    pub(super) answers: HashMap<MutationId, Answer>,
    pub(super) sequences: HashMap<OwnDevice, Sequence>,
}

impl Stored {
    /// A space in which this is the policy of all collections.
    pub(super) fn with_policy(policy: Policy) -> Self {
        let mut policies = PolicySet::default();
        let collection = CollectionName::parse(OTHERS).unwrap();
        policies.set(Arc::new(SetPolicy { collection, policy, version: 1 }));
        Self {
            rules: Rules { policies: Arc::new(policies), ..Rules::default() },
            ..Self::default()
        }
    }

    /// Loads what a group of requests needs, and no more.
    pub(super) fn load(&self, group: &[Request], lacks: &[Lack]) -> SpaceState {
        let mutations = || group.iter().flat_map(|request| &request.mutations);
        let mut keys: Vec<_> =
            mutations().filter_map(|it| it.content.as_ref().ok()).map(|it| &it.key).collect();
        keys.sort();
        keys.dedup();
        let records = keys.into_iter().filter_map(|key| self.records.get(key)).cloned();
        let answers = mutations().filter_map(|it| Some((it.id.clone(), self.answer(&it.id)?)));
        let sequences = group.iter().filter_map(|request| {
            let sequenced = request.mutations.iter().any(|it| it.device_sequence.is_some());
            let device = request.own_device().filter(|_| sequenced)?;
            let sequence = *self.sequences.get(&device)?;
            Some((device, sequence))
        });
        let mut known = Known {
            head: self.head,
            conflicts: self.conflict_number,
            records: records.collect(),
            answers: answers.collect(),
            sequences: sequences.collect(),
            ..Known::default()
        };
        lacks.iter().for_each(|lack| self.find(lack, &mut known));
        SpaceState::new(known, self.rules.clone())
    }

    fn find(&self, lack: &Lack, known: &mut Known) {
        match lack {
            Lack::Past { key, at, way } => {
                let Way { device, from, whole: _ } = way;
                let of_record = self.changes.iter().map(|(change, _)| change);
                let of_record: Vec<_> = of_record.filter(|it| it.key == *key).cloned().collect();
                assert_eq!(of_record.last().unwrap().revision, *at);
                let base = of_record.iter().rfind(|it| it.revision <= *from).cloned();
                let log = known.pasts.entry(key.clone()).or_default();
                log.extend(way.clone(), base, of_record);
                let met = self.conflicts.values().filter(|it| {
                    let Conflict { key: of, client, server, .. } = it.conflict.as_ref();
                    of == key && client.device == *device && server.revision > *from
                });
                let last = met.max_by_key(|it| it.found).map(|it| it.conflict.view());
                if let Some((device, view)) = device.clone().zip(last) {
                    log.note_view(device, view);
                }
            }
            Lack::Open(key) => {
                let mut open: Vec<_> = self.open(key).collect();
                open.sort_by_key(|it| it.number);
                let open = open.into_iter().map(|logged| logged.conflict.as_open());
                known.open.insert(key.clone(), open.collect());
            }
            Lack::Conflict(id) => {
                let found = self.conflicts.get(id).map(|logged| Arc::clone(&logged.conflict));
                known.named.insert(id.clone(), found);
            }
        }
    }

    pub(super) fn open(&self, key: &RecordKey) -> impl Iterator<Item = &LoggedConflict> {
        let open = |it: &&LoggedConflict| it.conflict.state() == ConflictState::Open;
        self.conflicts.values().filter(open).filter(move |it| it.conflict.key == *key)
    }

    /// The first answer of a mutation: a change, or what was kept.
    pub(super) fn answer(&self, id: &MutationId) -> Option<Answer> {
        let conflict = self.conflicts.get(id).map(|it| Arc::new(it.conflict.as_found()));
        let took_effect = |(change, fingerprint): &(Arc<Change>, Fingerprint)| {
            let conflict = conflict.clone();
            let outcome = match &change.settlement {
                Some(settlement) if settlement.merged => {
                    let change = Arc::clone(change);
                    Outcome::Merged(Arc::new(Record { change, open_conflicts: 0 }), conflict)
                }
                _ => Outcome::Applied(change.revision, conflict),
            };
            Answer { fingerprint: *fingerprint, outcome }
        };
        let change = self.changes.iter().find(|(change, _)| change.mutation_id == *id);
        change.map(took_effect).or_else(|| self.answers.get(id).cloned())
    }

    /// Stores what was decided, with every constraint that a database has.
    fn store(&mut self, writes: Writes, state: &SpaceState) {
        for (change, fingerprint) in writes.changes {
            assert_eq!(change.revision, self.head.next(), "revisions have no gaps");
            assert!(self.answer(&change.mutation_id).is_none(), "a second effect");
            self.head = change.revision;
            self.changes.push((change, fingerprint));
        }
        assert_eq!(self.head, state.head());
        for record in writes.inserts {
            let before = self.records.insert(record.key.clone(), record);
            assert!(before.is_none(), "an insert of what has a row");
        }
        for record in writes.updates.into_iter().chain(writes.touched) {
            let before = self.records.insert(record.key.clone(), record);
            assert!(before.is_some(), "an update of what has no row");
        }
        for closed in writes.closed {
            let logged = self.conflicts.get_mut(&closed.id).expect("it is in the log");
            assert_eq!(logged.conflict.state(), ConflictState::Open, "closed twice");
            let closing = Some(closed.closing);
            let conflict = Conflict { closing, ..logged.conflict.as_ref().clone() };
            (logged.number, logged.conflict) = (closed.number, Arc::new(conflict));
        }
        for logged in writes.conflicts {
            let before = self.conflicts.insert(logged.conflict.id.clone(), logged);
            assert!(before.is_none(), "found twice");
        }
        self.conflict_number = state.conflict_number();
        let mut numbers: Vec<_> = self.conflicts.values().map(|it| it.number).collect();
        numbers.sort_unstable();
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "a number twice");
        assert!(numbers.last().is_none_or(|last| *last == self.conflict_number));
        for (id, answer) in writes.answers {
            assert!(!answer.outcome.took_effect(), "the log has it");
            assert!(self.answer(&id).is_none(), "a second answer");
            self.answers.insert(id, answer);
        }
        self.sequences.extend(writes.sequences);
        for record in self.records.values() {
            let open = self.open(&record.key).count();
            assert_eq!(usize::try_from(record.open_conflicts).unwrap(), open, "miscounted");
        }
    }

    /// Decides a group as a committer does.
    pub(super) fn commit(&mut self, group: &[Request]) -> Vec<Verdict> {
        let mut lacks = Vec::new();
        loop {
            let mut state = self.load(group, &lacks);
            let verdicts =
                group.iter().map(|it| state.decide(it, OffsetDateTime::UNIX_EPOCH)).collect();
            if state.lacks().is_empty() {
                self.store(state.writes(), &state);
                return verdicts;
            }
            assert!(state.lacks().iter().all(|it| !lacks.contains(it)), "asked for twice");
            lacks.extend(state.lacks().iter().cloned());
        }
    }

    /// Records, log and conflicts, to compare.
    pub(super) fn essence(&self) -> (Vec<Arc<Record>>, Vec<Arc<Change>>, Vec<LoggedConflict>) {
        let mut records: Vec<_> = self.records.values().cloned().collect();
        records.sort_by_key(|record| record.revision);
        let changes = self.changes.iter().map(|(change, _)| Arc::clone(change)).collect();
        let mut conflicts: Vec<_> = self.conflicts.values().cloned().collect();
        conflicts.sort_by_key(|it| it.number);
        (records, changes, conflicts)
    }
}
