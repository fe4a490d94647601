//! What the server said of batches, and entries that are sent with their first numbers.

use super::calls::{Ended, fault};
use super::{Session, local};
use crate::client::engine::{Event, Fault, RequestNo, Settled, SpaceNo};
use crate::client::replica::{self, Answer, AnswerKind};
use crate::client::store::{Need, StoreError, Wanted};
use crate::client::wire;
use crate::rpc::proto;

impl Session {
    /// What the server said of a batch.
    pub(super) async fn results(
        &mut self,
        space: SpaceNo,
        request: RequestNo,
        results: Result<Vec<proto::MutationResult>, Fault>,
    ) -> Result<Vec<Event>, StoreError> {
        let results = match results {
            Ok(results) => results,
            Err(fault) if self.recall(space, request, &fault).await?.is_some() => {
                return Ok(Vec::new());
            }
            Err(fault) => return Ok(vec![Event::Failed { space, request, fault }]),
        };
        Ok(match self.settle(space, &results).await? {
            Err(fault) => vec![Event::Failed { space, request, fault }],
            Ok(settled) => {
                let queue = self.queue(space).await?;
                vec![Event::Answered { space, request, settled, queue }]
            }
        })
    }

    /// Stores what became of entries, and the conflicts that they met.
    pub(super) async fn settle(
        &mut self,
        space: SpaceNo,
        results: &[proto::MutationResult],
    ) -> Result<Result<Settled, Fault>, StoreError> {
        let answers = match self.answers(space, results).await? {
            Ok(answers) if answers.is_empty() => return Ok(Ok(Settled::default())),
            Ok(answers) => answers,
            Err(fault) => return Ok(Err(fault)),
        };
        crate::failpoint::reach("client.before_settle");
        let applied = |answer: &Answer| match answer.kind {
            AnswerKind::Applied(at) => Some(at),
            _ => None,
        };
        let told = answers.iter().map(|it| (it.id.clone(), applied(it))).collect();
        let need = Need::entries(Wanted::Told(told));
        let settled =
            self.store.step(local(space), need, move |replica| replica.settle(&answers)).await?;
        crate::failpoint::reach("client.after_settle");
        self.well(space).await?;
        Ok(Ok(counted(settled)))
    }

    /// Answers as they are taken in; first the conflicts that entries met are kept, so that whoever
    /// hears of the entry finds them.
    async fn answers(
        &mut self,
        space: SpaceNo,
        results: &[proto::MutationResult],
    ) -> Result<Result<Vec<Answer>, Fault>, StoreError> {
        let answers: Result<Vec<_>, Fault> = results.iter().map(wire::answer).collect();
        if answers.is_ok() {
            let met = results.iter().filter_map(|it| it.conflict.as_ref());
            let open: Vec<_> = met.filter(|it| it.state() == proto::ConflictState::Open).collect();
            if !open.is_empty() {
                self.keep_conflicts(space, &open, None).await?;
                crate::failpoint::reach("client.after_conflicts");
            }
        }
        Ok(answers)
    }

    /// A batch of one was refused because the server knows its id: if the entry went out under
    /// other numbers before, those go out again, and bring its first answer. None: they did not.
    async fn recall(
        &mut self,
        space: SpaceNo,
        request: RequestNo,
        refused: &Fault,
    ) -> Result<Option<()>, StoreError> {
        let sent = self.spaces.get(&space).and_then(|named| named.sent.clone());
        let alone = sent.is_some_and(|sent| sent.request == request && sent.entries == 1);
        if !alone || refused.reason != "MUTATION_ID_REUSED" {
            return Ok(None);
        }
        let need = Need::entries(Wanted::Front(1));
        let recalled = self.store.step(local(space), need, |replica| replica.recalled()).await?;
        let (Some(entry), Some(link)) = (recalled, &self.link) else { return Ok(None) };
        let mut sync = link.remote.sync();
        let asked = proto::BatchMutateRequest {
            space: self.name(space),
            device: self.device(),
            mutations: vec![wire::mutation(&entry)],
            atomic: false,
            document_form: wire::FORM,
        };
        let refused = refused.clone();
        self.calls.spawn(async move {
            let answer = sync.batch_mutate(asked).await;
            let answer = answer.map(tonic::Response::into_inner).map_err(fault);
            Ended::Recalled { space, request, refused, answer }
        });
        Ok(Some(()))
    }

    pub(super) async fn recalled(
        &mut self,
        space: SpaceNo,
        request: RequestNo,
        refused: Fault,
        answer: Result<proto::BatchMutateResponse, Fault>,
    ) -> Result<Vec<Event>, StoreError> {
        let results = answer.map(|answer| answer.results).unwrap_or_default();
        let first = match self.answers(space, &results).await? {
            Ok(answers) => answers.into_iter().next(),
            Err(_senseless) => None,
        };
        let Some(answer) = first else {
            // It cannot be told.
            return Ok(vec![Event::Failed { space, request, fault: refused }]);
        };
        crate::failpoint::reach("client.before_recalled");
        let settled = self
            .store
            .step(local(space), Need::entries(Wanted::FirstAndSyncing), move |replica| {
                replica.settle_recalled(&answer)
            })
            .await?;
        self.well(space).await?;
        let queue = self.queue(space).await?;
        Ok(vec![Event::Answered { space, request, settled: counted(settled), queue }])
    }
}

fn counted(settled: replica::Settled) -> Settled {
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    Settled {
        applied: count(settled.applied),
        merged: count(settled.merged),
        superseded: count(settled.superseded),
        conflicts: count(settled.conflicts),
        failed: count(settled.failed),
    }
}
