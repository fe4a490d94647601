//! What streams promise beside the order of changes: tokens that are renewed, events,
//! writes that are answered before they show.

mod events;
mod progress;
mod sizes;
mod tokens;
mod writes;

use prost::Message;
use prost_types::{DescriptorProto, FileDescriptorSet};
use syncline::rpc::proto::DESCRIPTOR_SET;

/// The server encodes frames once for both.
#[test]
fn watch_has_the_frames_of_subscribe() {
    let set = FileDescriptorSet::decode(DESCRIPTOR_SET).unwrap();
    let messages = set.file.iter().flat_map(|file| &file.message_type);
    let find = |name: &str| -> &DescriptorProto {
        messages.clone().find(|it| it.name() == name).expect("the contract has it")
    };
    let shape = |name| {
        let fields = find(name).field.iter();
        fields
            .map(|it| (it.number(), it.name().to_owned(), it.type_name().to_owned()))
            .collect::<Vec<_>>()
    };
    assert!(shape("SubscribeResponse").len() >= 12);
    assert_eq!(shape("WatchResponse"), shape("SubscribeResponse"));
}
