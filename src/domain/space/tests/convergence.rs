//! What strategies promise: whatever the order in which devices come back, the
//! record is the same in the end; nothing that one side alone has changed is
//! lost; and what is lost stands in the log.

mod apart;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::domain::fields::value_at;
use crate::domain::laws::laws;
use crate::domain::merge::edits;
use crate::domain::{
    Base, DeleteRule, Fallback, FieldRule, FieldRuleKind, Pattern, Pointer, Side, Strategy as Named,
};
use apart::*;

proptest! {
    #![proptest_config(laws())]

    #[test]
    fn the_last_write_of_all_wins_in_any_order(
        apart in apart(false, 2), one in turns(), other in turns(),
    ) {
        let (policy, queued) = (named(Named::LastWriteWins, DeleteRule::ByStrategy), queue(apart));
        let last = queued.iter().max_by_key(|it| it.micros).unwrap();
        let last = last.after.clone().map(|it| Document::from_fields(it).unwrap());
        for turns in [one, other] {
            let (stored, _) = run(&policy, &arrival(&queued, &turns));
            prop_assert_eq!(state(&stored).map(|it| it.fields()), last.as_ref().map(Document::fields));
        }
    }

    #[test]
    fn a_merge_by_time_is_all_edits_in_the_order_of_their_times(
        apart in apart(false, 0), one in turns(), other in turns(),
    ) {
        let (policy, queued) = (named(Named::Merge, DeleteRule::ByStrategy), queue(apart));
        let expected = replayed(&queued);
        for turns in [one, other] {
            let (stored, outcomes) = run(&policy, &arrival(&queued, &turns));
            let got = state(&stored).unwrap().fields();
            prop_assert_eq!(&got, &expected, "{:?}", outcomes);
        }
    }

    #[test]
    fn merges_converge_beside_deletions_that_win_or_lose(
        apart in apart(false, 3), one in turns(), other in turns(), wins in any::<bool>(),
    ) {
        let deletes = if wins { DeleteRule::DeleteWins } else { DeleteRule::UpdateWins };
        // An update that lost against a later one of the deleting device itself
        // leaves no trace that a deletion could lose against: so once each.
        let mut seen = std::collections::HashSet::new();
        let apart = apart.into_iter().filter(|(device, ..)| wins || seen.insert(*device));
        let queued = queue(apart.collect());
        for strategy in [Named::Merge, Named::Auto] {
            let policy = named(strategy, deletes);
            let (first, _) = run(&policy, &arrival(&queued, &one));
            let (second, _) = run(&policy, &arrival(&queued, &other));
            prop_assert_eq!(state(&first).map(|it| it.fields()), state(&second).map(|it| it.fields()));
        }
    }

    #[test]
    fn joined_lists_converge_but_for_their_order(
        apart in prop::collection::vec(
            (0..DEVICES.len(), prop::sample::subsequence(vec![1, 2, 3, 4, 5, 6], 0..5), any::<bool>()),
            1..9,
        ),
        one in turns(), other in turns(),
    ) {
        let policy = named(Named::Additive, DeleteRule::ByStrategy);
        // Once each: who adds again what they had removed says two things.
        let mut seen = std::collections::HashSet::new();
        let apart = apart.into_iter().filter(|(device, ..)| seen.insert(*device));
        let apart = apart.map(|(device, list, patch)| (device, Draft::Set("/l", json!(list)), patch));
        let queued = queue(apart.collect());
        let (first, _) = run(&policy, &arrival(&queued, &one));
        let (second, _) = run(&policy, &arrival(&queued, &other));
        prop_assert_eq!(unordered(state(&first)), unordered(state(&second)));
        let list = unordered(state(&first)).unwrap();
        let has = |document: &Map<String, Value>, item: i64| {
            document["l"].as_array().unwrap().contains(&json!(item))
        };
        for item in 1..=6 {
            let mut afters = queued.iter().map(|it| it.after.as_ref().unwrap());
            let expected = if item <= 3 {
                afters.all(|after| has(after, item))
            } else {
                afters.any(|after| has(after, item))
            };
            prop_assert_eq!(has(&list, item), expected, "{}", item);
        }
    }

    #[test]
    fn the_highest_number_wins_in_any_order(
        numbers in prop::collection::vec((0..DEVICES.len(), 11..40_i64), 1..9),
        one in turns(), other in turns(),
    ) {
        let version_field = Some(Pointer::parse("/n").unwrap());
        let policy =
            Policy { version_field, ..named(Named::HighestVersionWins, DeleteRule::ByStrategy) };
        // A device's numbers rise.
        let mut last = [10; DEVICES.len()];
        let apart = numbers.into_iter().map(|(device, step)| {
            last[device] += step;
            (device, Draft::Set("/n", last[device].into()), false)
        });
        let queued = queue(apart.collect());
        let number = |it: &Queued| it.after.as_ref().unwrap()["n"].as_i64();
        let highest = queued.iter().filter_map(number).max();
        for turns in [one, other] {
            let (stored, _) = run(&policy, &arrival(&queued, &turns));
            prop_assert_eq!(state(&stored).unwrap().fields()["n"].as_i64(), highest);
        }
    }

    #[test]
    fn rules_converge_and_every_amount_counts(
        amounts in prop::collection::vec((0..DEVICES.len(), -5..6_i64), 1..9),
        one in turns(), other in turns(),
        kind in prop::sample::select(vec![FieldRuleKind::Sum, FieldRuleKind::Max, FieldRuleKind::Min]),
    ) {
        let path = Pattern::parse("/n").unwrap();
        let fields = vec![FieldRule { path, kind, key_field: None }];
        let policy = Policy { fields, ..named(Named::Manual, DeleteRule::ByStrategy) };
        let mut seen = [10; DEVICES.len()];
        let apart = amounts.iter().map(|(device, amount)| {
            seen[*device] += *amount;
            (*device, Draft::Set("/n", seen[*device].into()), false)
        });
        let queued = queue(apart.collect());
        let expected = match kind {
            FieldRuleKind::Sum => Some(10 + amounts.iter().map(|(_, amount)| amount).sum::<i64>()),
            _ => None,
        };
        let (first, _) = run(&policy, &arrival(&queued, &one));
        let (second, _) = run(&policy, &arrival(&queued, &other));
        let number = |stored: &Stored| state(stored).unwrap().fields()["n"].as_i64();
        if let Some(expected) = expected {
            prop_assert_eq!((number(&first), number(&second)), (Some(expected), Some(expected)));
        } else if amounts.iter().map(|(device, _)| device).collect::<std::collections::HashSet<_>>().len() == amounts.len() {
            prop_assert_eq!(number(&first), number(&second));
        }
    }

    #[test]
    fn what_one_side_alone_changed_is_kept(
        apart in apart(true, 0), turns in turns(), additive in any::<bool>(),
    ) {
        let strategy = if additive { Named::Additive } else { Named::Merge };
        let policy = Policy { fallback: Fallback::Manual, ..named(strategy, DeleteRule::ByStrategy) };
        let queued = queue(apart);
        let (stored, _) = run(&policy, &arrival(&queued, &turns));
        let changes = |device: usize| {
            let mine = queued.iter().filter(move |it| it.device == device);
            mine.flat_map(|it| edits(&it.before, it.after.as_ref().unwrap())).map(|it| it.path)
        };
        let merged = state(&stored).unwrap().fields();
        for logged in stored.conflicts.values() {
            // What waits as a whole is not in the record yet.
            if logged.conflict.state() == ConflictState::Open {
                return Ok(());
            }
        }
        for device in 0..DEVICES.len() {
            let Some(last) = queued.iter().rfind(|it| it.device == device) else { continue };
            for path in changes(device) {
                let touches = |other: Vec<String>| other.starts_with(&path) || path.starts_with(&other);
                let mut others = (0..DEVICES.len()).filter(|it| *it != device).flat_map(changes);
                if !others.any(touches) {
                    prop_assert_eq!(
                        value_at(&merged, &path), value_at(last.after.as_ref().unwrap(), &path)
                    );
                }
            }
        }
    }

    #[test]
    fn whoever_is_not_simply_applied_has_both_sides_in_the_log(
        policy in policy(), apart in apart(true, 2), turns in turns(),
    ) {
        let queued = queue(apart);
        let requests = arrival(&queued, &turns);
        let mut stored = seeded(policy);
        let mut queues: [Vec<&Queued>; 3] = std::array::from_fn(|device| {
            queued.iter().rev().filter(|it| it.device == device).collect()
        });
        for request in requests {
            let before = stored.clone();
            let device = DEVICES.iter().position(|it| Some(*it) == request.device.as_ref().map(DeviceId::as_str));
            let sent = queues[device.unwrap()].pop().unwrap();
            let verdict = stored.commit(std::slice::from_ref(&request)).pop().unwrap();
            let outcome = verdict.unwrap().pop().unwrap().outcome;
            let id = &request.mutations[0].id;
            let record = &before.records[&key("1")];
            let foreign = record.is_unseen(
                &Seen::Revision(Revision::new(1).unwrap()), request.device.as_ref(),
            );
            let logged = stored.conflicts.get(id).map(|it| &it.conflict);
            prop_assert_eq!(foreign && !matches!(outcome, Outcome::Rejected(_)), logged.is_some());
            let Some(Conflict { server: Side { document, .. }, client, base: seen, .. }) =
                logged.map(AsRef::as_ref)
            else {
                continue;
            };
            prop_assert_eq!(document, &record.document, "the server's side");
            let made = sent.after.clone().map(|it| Document::from_fields(it).unwrap());
            prop_assert_eq!(client.document.as_ref().map(Document::fields), made.map(|it| it.fields()));
            prop_assert!(matches!(seen, Base::Known(_)), "the base is kept");
        }
    }

    #[test]
    fn the_same_again_under_another_id_changes_nothing(
        apart in apart(false, 0), turns in turns(),
        strategy in prop::sample::select(vec![
            Named::LastWriteWins, Named::Merge, Named::Auto, Named::ServerWins, Named::ClientWins,
        ]),
    ) {
        let policy = named(strategy, DeleteRule::ByStrategy);
        let mut requests = arrival(&queue(apart), &turns);
        let mut again = requests.last().unwrap().clone();
        let (once, _) = run(&policy, &requests);
        again.mutations[0].id = MutationId::parse("again").unwrap();
        again.mutations[0].device_sequence = None;
        requests.push(again);
        let (twice, _) = run(&policy, &requests);
        prop_assert_eq!(state(&once).map(|it| it.fields()), state(&twice).map(|it| it.fields()));
    }
}
