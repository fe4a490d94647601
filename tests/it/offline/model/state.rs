//! All that a server has of one space, as anybody may read it.

use std::collections::{BTreeMap, HashMap, HashSet};

use syncline::rpc::proto::{
    ChangesSinceRequest, DocumentForm, GetStatusRequest, ListConflictsRequest, ListRecordsRequest,
};

use crate::support::{Client, text};

#[derive(Debug, Default)]
pub struct ServerState {
    pub head: i64,
    /// Of each collection, by id: the revision and the document.
    pub records: BTreeMap<String, BTreeMap<String, (i64, String)>>,
    /// How often each mutation has a change.
    pub log: HashMap<String, usize>,
    /// All documents that ever were.
    pub texts: Vec<String>,
    pub conflicts: HashSet<String>,
}

impl ServerState {
    pub async fn read(client: &Client, space: &str, collections: &[&str]) -> Self {
        let mut state = Self::default();
        state.read_log(client, space).await;
        for collection in collections {
            state.read_records(client, space, collection).await;
        }
        state.read_conflicts(client, space).await;
        state
    }

    async fn read_log(&mut self, client: &Client, space: &str) {
        let mut cursor = None;
        loop {
            let request = ChangesSinceRequest {
                space: space.into(),
                cursor,
                every_step: true,
                page_size: 1_000,
                document_form: DocumentForm::Json.into(),
                ..ChangesSinceRequest::default()
            };
            let page = client.stub.clone().changes_since(request).await.unwrap().into_inner();
            for change in page.changes {
                *self.log.entry(change.mutation_id).or_default() += 1;
                self.texts.extend(change.document.as_ref().map(text));
            }
            (self.head, cursor) = (page.head, page.cursor);
            if !page.has_more {
                break;
            }
        }
    }

    async fn read_records(&mut self, client: &Client, space: &str, collection: &str) {
        let request = ListRecordsRequest {
            space: space.into(),
            collection: collection.into(),
            page_size: 1_000,
            document_form: DocumentForm::Json.into(),
            ..ListRecordsRequest::default()
        };
        let page = client.stub.clone().list_records(request).await.unwrap().into_inner();
        let records = page.records.into_iter().map(|record| {
            let document = record.document.as_ref().map(text);
            (record.key.unwrap().id, (record.revision, document.expect("it lives")))
        });
        self.records.insert(collection.into(), records.collect());
    }

    async fn read_conflicts(&mut self, client: &Client, space: &str) {
        let mut page_token = String::new();
        loop {
            let request = ListConflictsRequest {
                space: space.into(),
                page_size: 1_000,
                page_token,
                ..ListConflictsRequest::default()
            };
            let page = client.conflicts.clone().list_conflicts(request).await.unwrap().into_inner();
            self.conflicts.extend(page.conflicts.into_iter().map(|it| it.id));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
    }
}

/// Where a space is.
pub async fn head(client: &Client, space: &str) -> i64 {
    let request = GetStatusRequest { space: space.into(), ..GetStatusRequest::default() };
    client.stub.clone().get_status(request).await.unwrap().into_inner().head
}
