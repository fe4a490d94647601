//! Scripts of single rules, and a simulation of everything together.
