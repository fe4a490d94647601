//! A whole Subscribe session as a script, and its transcript as a snapshot:
//! what a client says, and every frame that answers it.

mod ends;
mod follow;
mod said;
mod starts;

use std::fmt::Write as _;

use syncline::rpc::proto::subscribe_request::Frame as Out;
use syncline::rpc::proto::subscribe_response::Frame;
use syncline::rpc::proto::{
    Change, ChangeAction, DocumentForm, Failure, GoingAwayReason, MutateRequest, Mutation, Record,
    ResyncReason, SubscribeFrame,
};

use crate::support::{Client, Stream, describe, text};

/// A session and what has been said in it so far.
struct Session {
    client: Client,
    stream: Stream,
    epoch: String,
    log: String,
}

impl Session {
    async fn open(client: Client) -> Self {
        let stream = Stream::open(&client).await.unwrap();
        let request = syncline::rpc::proto::GetStatusRequest::default();
        let epoch = client.stub.clone().get_status(request).await.unwrap().into_inner().epoch;
        Self { client, stream, epoch, log: String::new() }
    }

    fn note(&mut self, line: &str) {
        let line = line.replace(&self.epoch, "<epoch>");
        writeln!(self.log, "{line}").unwrap();
    }

    async fn subscribe(&mut self, what: &str, frame: SubscribeFrame) {
        self.note(&format!("> subscribe {}: {what}", frame.subscription_id));
        let form = DocumentForm::Json.into();
        self.stream.subscribe(SubscribeFrame { document_form: form, ..frame }).await;
    }

    async fn unsubscribe(&mut self, id: &str) {
        self.note(&format!("> unsubscribe {id}"));
        self.stream.unsubscribe(id).await;
    }

    async fn send(&mut self, what: &str, frame: Out) {
        self.note(&format!("> {what}"));
        self.stream.send(frame).await;
    }

    /// A write of a device, outside the stream.
    async fn write(&mut self, device: &str, mutation: Mutation) {
        let request =
            MutateRequest { device: device.into(), mutation: Some(mutation), ..Default::default() };
        let answer = self.client.stub.clone().mutate(request).await.unwrap().into_inner();
        let result = answer.result.unwrap();
        self.note(&format!("> {device} writes {}", result.revision));
    }

    /// Takes in as many frames. Those of one step are sorted by subscription:
    /// between subscriptions no order is promised.
    async fn expect(&mut self, frames: usize) {
        let mut lines = Vec::new();
        for _ in 0..frames {
            lines.push(show(self.stream.frame().await));
        }
        lines.sort_by_key(|line| line.split(' ').nth(1).map(str::to_owned));
        lines.iter().for_each(|line| self.note(&format!("< {line}")));
    }

    /// Takes in as many frames, whose order counts.
    async fn expect_in_order(&mut self, frames: usize) {
        for _ in 0..frames {
            self.expect(1).await;
        }
    }

    /// Takes in the stream's end.
    async fn end(&mut self) {
        let line = match self.stream.next().await {
            Ok(Some(Frame::Progress(_))) => return Box::pin(self.end()).await,
            Ok(Some(frame)) => show(frame),
            Ok(None) => "end".into(),
            Err(status) => format!("end: {}: {}", describe(&status), status.message()),
        };
        self.note(&format!("< {line}"));
    }
}

fn show(frame: Frame) -> String {
    match frame {
        Frame::Subscribed(it) => format!(
            "subscribed {} to {} epoch {} head {} floor {}",
            it.subscription_id, it.space, it.epoch, it.head, it.floor
        ),
        Frame::Changes(it) => {
            let changes: String =
                it.changes.iter().map(|change| format!("\n    {}", line(change))).collect();
            let partial = if it.partial { " partial" } else { "" };
            let names = it.subscription_ids.join("+");
            format!("changes {names} ({}, {}]{partial}{changes}", it.after, it.up_to)
        }
        Frame::CaughtUp(it) => format!("caught_up {} at {}", it.subscription_id, it.up_to),
        Frame::Progress(_) => panic!("left out"),
        Frame::Snapshot(it) => {
            let records: String =
                it.records.iter().map(|record| format!("\n    {}", record_line(record))).collect();
            let end = if it.last { ", the last" } else { "" };
            format!("snapshot {} at {}{end}{records}", it.subscription_id, it.revision)
        }
        Frame::Mutated(it) => {
            let results: String = it
                .results
                .iter()
                .map(|result| format!("\n    {}", crate::support::show(result)))
                .collect();
            match it.failure {
                None => format!("mutated {}{results}", it.request_id),
                Some(failure) => format!("mutated {} {}", it.request_id, why(&failure)),
            }
        }
        Frame::Access(it) => {
            format!("access {} {} {:?} {}", it.space, it.title, it.role(), it.collections.join(" "))
        }
        Frame::Event(it) => {
            let document = it.document.as_ref().map_or_else(|| "-".into(), text);
            format!(
                "event {} {} {document} by {} of {}, {} missed",
                it.subscription_id, it.topic, it.device, it.author, it.missed
            )
        }
        Frame::RemovedFromView(it) => format!("removed_from_view {}", it.subscription_id),
        Frame::GoingAway(it) => {
            let reason = GoingAwayReason::try_from(it.reason).unwrap().as_str_name();
            format!("going_away {reason} retry after {:?}", it.retry_after.unwrap())
        }
        Frame::Conflict(it) => {
            let conflict = it.conflict.unwrap();
            let state = conflict.state().as_str_name();
            format!("conflict {} {} {state}", it.subscription_id, conflict.id)
        }
        Frame::Closed(it) => {
            let violations: String = it
                .violations
                .iter()
                .map(|it| format!("\n    {}: {}", it.field, it.description))
                .collect();
            format!(
                "closed {} code {} reason {:?}: {}{violations}",
                it.subscription_id, it.code, it.reason, it.message
            )
        }
        Frame::ResyncRequired(it) => {
            let reason = ResyncReason::try_from(it.reason).unwrap().as_str_name();
            format!(
                "resync_required {} {reason} epoch {} head {} floor {}",
                it.subscription_id, it.epoch, it.head, it.floor
            )
        }
    }
}

fn record_line(record: &Record) -> String {
    let key = record.key.as_ref().unwrap();
    let document = record.document.as_ref().map_or_else(|| "-".into(), text);
    format!("{} {}/{} {document}", record.revision, key.collection, key.id)
}

fn why(failure: &Failure) -> String {
    let violations = failure.violations.iter();
    let violations: String =
        violations.map(|it| format!("\n    {}: {}", it.field, it.description)).collect();
    format!("code {} reason {:?}: {}{violations}", failure.code, failure.reason, failure.message)
}

fn line(change: &Change) -> String {
    let key = change.key.as_ref().unwrap();
    let action = ChangeAction::try_from(change.action).unwrap().as_str_name();
    let action = action.trim_start_matches("CHANGE_ACTION_").to_lowercase();
    let document = match (&change.document, &change.delta) {
        (Some(document), _) => text(document),
        (None, Some(delta)) => {
            let set = delta.set.as_ref().map_or_else(String::new, text);
            format!("at {} unset {:?} set {set}", delta.base_revision, delta.unset)
        }
        (None, None) if change.own => "own".into(),
        (None, None) => "-".into(),
    };
    let batch = match change.batch_end {
        0 => String::new(),
        end => format!(" in a batch to {end}"),
    };
    format!(
        "{} {action} {}/{} {document} before {} by {} of {} as {}{batch}",
        change.revision,
        key.collection,
        key.id,
        change.previous_revision,
        change.device,
        change.author,
        change.mutation_id
    )
}

fn named(id: &str) -> SubscribeFrame {
    SubscribeFrame { subscription_id: id.into(), ..Default::default() }
}

fn of(collection: &str, mut mutation: Mutation) -> Mutation {
    mutation.key.as_mut().unwrap().collection = collection.into();
    mutation
}
