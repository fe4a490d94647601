//! What asking who may do what takes from writers: members of shared spaces, whose calls are
//! counted and whose spaces have quotas, beside the same writers in spaces of their own, where
//! there is nothing to ask.

use tonic::service::interceptor::InterceptedService;

use super::Bench;
use super::load::{Measured, Work, closed_loop};
use super::report::Expected;
use super::target::{Bearer, Beside, Target, connect, put};
use super::write::CLIENTS;
use crate::config::ServerConfig;
use crate::rpc::proto::space_service_client::SpaceServiceClient;
use crate::rpc::proto::sync_service_client::SyncServiceClient;
use crate::rpc::proto::{
    CreateSpaceRequest, MutateRequest, MutationOutcome, Role, SetMemberRequest,
};

type Stub = super::target::Stub;

/// A member who writes records to one space.
struct Member {
    stub: Stub,
    space: String,
    name: String,
    number: u64,
}

impl Work for Member {
    async fn work(&mut self) -> anyhow::Result<u64> {
        self.number += 1;
        let mutation = Some(put(format!("{}-{}", self.name, self.number), self.number));
        let space = self.space.clone();
        let request = MutateRequest { space, mutation, ..Default::default() };
        let answer = self.stub.mutate(request).await?.into_inner().result.unwrap_or_default();
        anyhow::ensure!(answer.outcome() == MutationOutcome::Applied, "not applied: {answer:?}");
        Ok(1)
    }
}

/// Limits that count and never hold anybody back.
fn limited(config: &mut ServerConfig) {
    config.rates.writes_per_second = 1_000_000;
    config.rates.reads_per_second = 1_000_000;
    config.rates.address_calls_per_second = 1_000_000;
    config.quotas.space_records = 1_000_000_000;
    config.quotas.space_bytes = 1 << 40;
}

pub(super) async fn round(bench: &mut Bench) -> anyhow::Result<()> {
    let seconds = bench.plan.seconds;
    let asking = bench.target.beside(limited).await?;
    let plain = bench.target.beside(|_config| {}).await?;
    for (one_space, name) in [(true, "one space"), (false, "a space each")] {
        let mut sums: [Option<Measured>; 2] = [None, None];
        for which in [0, 1, 1, 0, 1, 0, 0, 1] {
            let clients = if which == 0 {
                members(&bench.target, &asking, one_space).await?
            } else {
                owners(&bench.target, &plain, one_space).await?
            };
            let measured = closed_loop(clients, seconds).await?;
            match sums.get_mut(which) {
                Some(Some(sum)) => sum.add(&measured)?,
                Some(none) => *none = Some(measured),
                None => {}
            }
        }
        let [Some(asked), Some(own)] = sums else { anyhow::bail!("nothing was measured") };
        let asked = bench.report.figure(format!("Mutate of members, {name}"), "writes", &asked);
        let figure = format!("baseline: Mutate of owners without limits, {name}");
        let own = bench.report.figure(figure, "writes", &own);
        let ratio = format!("Mutate of members / of owners, {name}");
        bench.report.ratio(ratio, Expected::AtLeast(0.95), asked, own);
    }
    asking.stop().await;
    plain.stop().await;
    Ok(())
}

/// Writers with a space each, or all of one user, that nobody has to be asked about.
async fn owners(target: &Target, server: &Beside, one_space: bool) -> anyhow::Result<Vec<Member>> {
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let user = if one_space { 5_000_000 } else { 5_000_001 + number };
        clients.push(writer(server.stub(target, user).await?, String::new()));
    }
    Ok(clients)
}

/// Writers who are members of a shared space, one for all or one each.
async fn members(target: &Target, server: &Beside, one_space: bool) -> anyhow::Result<Vec<Member>> {
    let name = |number: usize| format!("member-{}-{number}", target.run());
    let admin = |user: &str| {
        let bearer = Bearer::new(&target.token_of(user)?)?;
        anyhow::Ok((bearer, server.uri()))
    };
    let mut clients = Vec::new();
    let mut shared = None;
    for number in 0..CLIENTS {
        let user = name(number);
        let space = match (&shared, one_space) {
            (Some(space), true) => String::clone(space),
            _ => {
                let (bearer, uri) = admin(&name(1_000_000 + number))?;
                let stub =
                    SpaceServiceClient::new(InterceptedService::new(connect(&uri).await?, bearer));
                create(stub, target.run()).await?
            }
        };
        let (bearer, uri) = admin(&name(1_000_000 + if one_space { 0 } else { number }))?;
        let mut stub =
            SpaceServiceClient::new(InterceptedService::new(connect(&uri).await?, bearer));
        let role = Role::Writer.into();
        let set = SetMemberRequest {
            space: space.clone(),
            user: user.clone(),
            role,
            collections: Vec::new(),
        };
        stub.set_member(set).await?;
        let bearer = Bearer::new(&target.token_of(&user)?)?;
        let stub = SyncServiceClient::new(InterceptedService::new(connect(&uri).await?, bearer));
        clients.push(writer(stub, space.clone()));
        shared = Some(space);
    }
    Ok(clients)
}

async fn create(
    mut stub: SpaceServiceClient<super::target::Connection>,
    run: &str,
) -> anyhow::Result<String> {
    let (request_id, title) = (run.to_owned(), "Bench".to_owned());
    let request = CreateSpaceRequest { request_id, title, ..Default::default() };
    let created = stub.create_space(request).await?.into_inner();
    Ok(created.space.unwrap_or_default().space)
}

fn writer(stub: Stub, space: String) -> Member {
    // Every round writes records of its own.
    let name = uuid::Uuid::new_v4().simple().to_string();
    Member { stub, space, name, number: 0 }
}
