//! Migrations that have landed stay as they are.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use super::{Offences, Tree};

/// The landed migrations. A file that has landed is never edited: add the next one.
const MIGRATIONS: &[(&str, &str)] = &[
    ("0001_foundation.sql", "9876170809dcbf5290c723ff8da387b78cf33771b8094a7607db71b44c88b6d1"),
    ("0002_conflicts.sql", "ecc5a9a13a1378e672981a34085d6993bf8ba9c0a5e0165ecfc3fc9a1985cc2d"),
    ("0003_policies.sql", "6ec28daf69109e149cf4ad8ced6fe30267013f4a4575c69b4ac587ad13e38b69"),
    ("0004_conflict_lists.sql", "09554b24a3ad3744e0059aabf2bafadfee71eae991d79dd07b040fe14758aae1"),
    ("0005_streams.sql", "645b9076d6212eb7f337c078d9cd1f0db0f2aae42102f1ad1033ae1aba5001c8"),
    ("0006_whole_state.sql", "0806223ac0964b3582d392ab8c22eed45d210c1a6d3ed42bc70551bc142e29eb"),
    ("0007_queue.sql", "183a1d7031d117dd3b789dad85c18d178016c772e7d21a318fc6c9dc412bb164"),
    ("0008_queue_times.sql", "8618c4bdb347ddc9468fdc40f76d26588b14f45961795eb967b0228993b6e5ef"),
    ("0009_access.sql", "4f52e873142c43935617db8e0c50b23b4a94084da4f010c34271c1ebadd5a80b"),
    ("0010_own_devices.sql", "4ce272dd94b2cdd82640c22931c04f3b17e7488a327375f7ec40ffae0d906992"),
];

pub(super) fn check(tree: &Tree, offences: &mut Offences) {
    let runner = tree.file("src/store/migrate.rs");
    let mut seen = 0;
    for file in &tree.files {
        let Some(name) = file.path.strip_prefix("migrations/") else { continue };
        let hash = Sha256::digest(file.text.as_bytes()).iter().fold(String::new(), |mut hex, b| {
            let _ = write!(hex, "{b:02x}");
            hex
        });
        match MIGRATIONS.iter().find(|(landed, _)| *landed == name) {
            Some((_, landed)) => {
                seen += 1;
                if *landed != hash {
                    offences.add(&file.path, 1, format!("landed, and yet edited: {hash}"));
                }
            }
            None => {
                offences.add(&file.path, 1, format!("list it in tidy/migrations.rs, as {hash}"))
            }
        }
        if !runner.text.contains(&file.path) {
            offences.add(&runner.path, 1, format!("does not run {name}"));
        }
    }
    if seen != MIGRATIONS.len() {
        offences.add("migrations", 0, "a landed migration is missing");
    }
}
