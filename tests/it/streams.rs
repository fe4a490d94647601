//! What streams promise beside the order of changes: tokens that are renewed, events,
//! writes that are answered before they show.

mod events;
mod tokens;
mod writes;
