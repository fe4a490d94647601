//! What a program needs to talk to a server. Must not know how the program is driven, nor anything
//! of the server's inside but the contract.

pub mod remote;
