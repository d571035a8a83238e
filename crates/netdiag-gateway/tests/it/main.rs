//! The gateway over real sockets: what passes, what is refused, what engines and clients do wrong, and how it ends.
//!
//! Engines are the lab's demo engine, which counts, or scripts of bytes, which do what no engine should.

mod answers;
mod clients;
mod drain;
mod engines;
mod faults;
mod gone;
mod held;
mod links;
mod paced;
mod refused;
mod resumed;
mod resumed_over;
mod secure;
mod segments;
mod shared;
mod streams;
mod support;
mod transparent;
