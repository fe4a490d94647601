//! Every bound of the system, with its unit last in the name and its reason.

/// Size of one message on the wire. Clients' libraries refuse 4 MiB by default.
pub const MESSAGE_BYTES_MAX: usize = 3 << 20;
/// Messages up to here need no room while they are on their way.
pub const INTAKE_FREE_BYTES: usize = 16 << 10;
/// Room for larger ones of one user: more than what may wait to be decided.
pub const USER_INTAKE_BYTES_MAX: usize = 96 << 20;
/// Room for those of all users together.
pub const INTAKE_BYTES_MAX: usize = 384 << 20;
/// Documents that one page or frame gathers from the store. Leaves room for the
/// growth of a document when it is sent as a Struct.
pub const PAGE_DOCUMENT_BYTES_MAX: usize = 1 << 20;
/// Entries in one page.
pub const PAGE_ENTRIES_MAX: usize = 1_000;
/// Entries in one page when the request does not say.
pub const PAGE_ENTRIES_DEFAULT: usize = 100;
/// Mutations in one batch.
pub const BATCH_MUTATIONS_MAX: usize = 1_000;
/// One document as canonical JSON: large enough for a note, small enough that a
/// page of them fits in memory many times over.
pub const DOCUMENT_BYTES_MAX: usize = 256 << 10;
/// Levels of a document; a Struct spends three protobuf levels on each, and
/// decoders stop at 100.
pub const DOCUMENT_DEPTH_MAX: usize = 32;
/// Values in a document, so that its cost follows its size.
pub const DOCUMENT_VALUES_MAX: usize = 10_000;
/// A key in a document.
pub const DOCUMENT_KEY_BYTES_MAX: usize = 4 << 10;
/// The paths of a document's values together: a long key far up is in all of them,
/// and who compares documents has them all at once.
pub const DOCUMENT_PATHS_BYTES_MAX: usize = 4 << 20;
/// Paths that one patch removes.
pub const PATCH_UNSET_MAX: usize = 1_000;
/// A collection's name. With the record's id it must fit into an index entry.
pub const COLLECTION_BYTES_MAX: usize = 128;
/// A record's id.
pub const RECORD_ID_BYTES_MAX: usize = 256;
/// A mutation's id.
pub const MUTATION_ID_BYTES_MAX: usize = 128;
/// A device's id.
pub const DEVICE_ID_BYTES_MAX: usize = 64;
/// A user's id.
pub const USER_ID_BYTES_MAX: usize = 128;
/// A shared space's id.
pub const SPACE_ID_BYTES_MAX: usize = 64;
/// What people call a shared space.
pub const SPACE_TITLE_BYTES_MAX: usize = 256;
/// Members of a space: each change of one is looked at by every replica.
pub const SPACE_MEMBERS_MAX: i64 = 10_000;
/// Spaces of which a user is a member: whoever adds one cannot flood somebody's list.
pub const USER_SPACES_MAX: i64 = 1_000;
/// Collections that a membership is limited to.
pub const MEMBER_COLLECTIONS_MAX: usize = 100;
/// Streams of one user that hear of memberships that have changed, before they have
/// looked: a further change makes them look at all.
pub const ACCESS_NEWS_MAX: usize = 100;
/// Users' memberships that a replica remembers.
pub const ACCESS_CACHE_ENTRIES_MAX: usize = 100_000;
/// The client's name of a subscription.
pub const SUBSCRIPTION_ID_BYTES_MAX: usize = 64;
/// Open subscriptions on one stream.
pub const STREAM_SUBSCRIPTIONS_MAX: usize = 1_000;
/// Answers that a stream gathers for a reader who does not read, before its server no
/// longer hears what the client says.
pub const STREAM_ANSWER_BYTES_MAX: usize = 256 << 10;
/// `mutate` frames of one stream that wait for their answers.
pub const STREAM_MUTATES_MAX: usize = 32;
/// Those frames together, unless it is a single one.
pub const STREAM_MUTATE_BYTES_MAX: usize = 4 << 20;
/// A client's name of a request on a stream.
pub const REQUEST_ID_BYTES_MAX: usize = 64;
/// What an event is about.
pub const EVENT_TOPIC_BYTES_MAX: usize = 64;
/// An event's document: with its author and topic it must fit into a notification.
pub const EVENT_BYTES_MAX: usize = 4 << 10;
/// Events of a space that wait for slow readers.
pub const SPACE_EVENTS_MAX: usize = 256;
/// Those events together.
pub const SPACE_EVENT_BYTES_MAX: usize = 128 << 10;
/// Events that wait to be told to other replicas; more are dropped.
pub const EVENT_QUEUE_MAX: usize = 1_000;
/// Documents of an atomic batch that a live frame carries together, if they are more
/// than a frame has otherwise.
pub const FRAME_BATCH_BYTES_MAX: usize = 1 << 20;
/// Pages of catch-ups that are kept for others who come from the same place.
pub const SHARED_PAGES_BYTES_MAX: usize = 16 << 20;
/// Records in all filters of one stream together.
pub const STREAM_FILTER_RECORDS_MAX: usize = 10_000;
/// Records in one filter.
pub const FILTER_RECORDS_MAX: usize = 1_000;
/// The longest wait of a long poll, in seconds: proxies end calls that are silent
/// for longer.
pub const WAIT_SECONDS_MAX: u64 = 15;
/// Collections in one filter.
pub const FILTER_COLLECTIONS_MAX: usize = 100;
/// Mutations that one transaction gathers.
pub const GROUP_MUTATIONS_MAX: usize = 2_000;
/// Documents that one transaction gathers, unless a single request has more.
pub const GROUP_DOCUMENT_BYTES_MAX: usize = 16 << 20;
/// Documents that one transaction keeps in the log of conflicts: a deletion is
/// small, and what it meets is not.
pub const GROUP_CONFLICT_BYTES_MAX: usize = 64 << 20;
/// Requests that wait for one committer. A further one is told to come later.
pub const COMMITTER_QUEUE_REQUESTS_MAX: usize = 4_096;
/// Batches of frames that wait in one stream before its reader is waited for.
/// With the next bound this is what a reader who stops reading can hold.
pub const STREAM_QUEUE_BATCHES_MAX: usize = 1;
/// Changes in one live frame, and frames in one batch; more go into the next.
pub const FRAME_CHANGE_BYTES_MAX: usize = 64 << 10;
/// Changes or records in one frame of a catch-up: others have their turn between two.
pub const FRAME_ENTRIES_MAX: usize = 256;
/// The same while others are live: what is read at once is what they may have to wait for.
pub const BUSY_FRAME_ENTRIES_MAX: usize = 32;
/// Documents in one frame of a catch-up; there is always room for one document.
pub const FRAME_DOCUMENT_BYTES_MAX: usize = 128 << 10;
/// Documents that one request may produce: a patch is small, and what it makes
/// of a large document is not.
pub const REQUEST_DOCUMENT_BYTES_MAX: usize = 16 << 20;
/// Collections whose digests are told one by one.
pub const DIGEST_COLLECTIONS_MAX: usize = 1_000;
/// Records of one replacement of a whole space.
pub const REPLACE_RECORDS_MAX: usize = 1_000_000;
/// Their documents: they lie in the database's temporary files meanwhile.
pub const REPLACE_BYTES_MAX: usize = 2 << 30;
/// Exports that one server does at a time, one for each user.
pub const EXPORTS_MAX: usize = 4;
/// Replacements that one server does at a time, one for each user: each has a connection
/// of its own.
pub const REPLACEMENTS_MAX: usize = 2;
/// The id of a replacement: those of its changes have a number behind it.
pub const REPLACEMENT_ID_BYTES_MAX: usize = 96;
/// Entries of a space's queue that are not dealt with.
pub const QUEUE_ENTRIES_MAX: usize = 10_000;
/// A mutation in the queue, as it is sent: a page has room for one.
pub const QUEUE_MUTATION_BYTES_MAX: usize = 1 << 20;
/// Violations that one rejection names, and their texts: with these a batch in
/// which everything is wrong still has an answer that fits into a message.
pub const REJECTION_VIOLATIONS_MAX: usize = 4;
/// The path in a violation.
pub const VIOLATION_FIELD_BYTES_MAX: usize = 120;
/// The text of a violation.
pub const VIOLATION_BYTES_MAX: usize = 240;
/// Paths that a conflict names, of those that overlap and of those that were lost; and
/// that a step of a record's history does.
pub const CONFLICT_PATHS_MAX: usize = 100;
/// Those paths together.
pub const CONFLICT_PATHS_BYTES_MAX: usize = 32 << 10;
/// One of them; of a longer one the objects around its value. Any key fits.
pub const CONFLICT_PATH_BYTES_MAX: usize = 2 * DOCUMENT_KEY_BYTES_MAX + 1;
/// Paths that a merged change claims; with more, the difference has to do.
pub const CLAIMED_PATHS_MAX: usize = 1_000;
/// Those paths together.
pub const CLAIMED_PATHS_BYTES_MAX: usize = 64 << 10;
/// Policies that are set: every replica holds all of them.
pub const POLICIES_MAX: usize = 1_000;
/// A policy with its schema, as JSON.
pub const POLICY_BYTES_MAX: usize = 256 << 10;
/// Rules in a policy: each overlap is held against all of them.
pub const POLICY_FIELDS_MAX: usize = 100;
/// A JSON Schema as text.
pub const SCHEMA_BYTES_MAX: usize = 64 << 10;
/// Transforms in one patch.
pub const PATCH_TRANSFORMS_MAX: usize = 100;
/// Words and gaps, or lines, of a text that is merged: the time that it takes
/// grows with their square.
pub const TEXT_PIECES_MAX: usize = 1_000;
/// That time for all texts of a document, as the product of their pieces.
pub const TEXT_STEPS_MAX: usize = 8_000_000;
/// Devices in a record's history; those that wrote longest ago are forgotten.
pub const HISTORY_DEVICES_MAX: usize = 64;
/// Changes by others that are read of a record to find what they wrote; of a
/// longer way only the ends count.
pub const PAST_CHANGES_MAX: usize = 64;
/// Documents of those changes.
pub const PAST_BYTES_MAX: usize = 1 << 20;
/// Documents of all pasts that one group reads, apart from their ends.
pub const GROUP_PAST_BYTES_MAX: usize = 64 << 20;
/// Changes of a record that are looked through to find what a base had seen.
pub const PAST_DEPTH_MAX: usize = 2_000;
/// Conflicts and writes that a preview tells of, each.
pub const PREVIEW_ENTRIES_MAX: usize = 100;
/// Violations that a rejection by a schema names.
pub const SCHEMA_VIOLATIONS_MAX: usize = 100;
/// Open conflicts of a record that a write is held against; older ones wait for
/// a resolution.
pub const OPEN_CONFLICTS_MAX: usize = 200;
