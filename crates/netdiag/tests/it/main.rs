//! The real binary, from the outside: bad input, precedence of settings, and each command at work.
//!
//! Nothing here sleeps and hopes: every wait is for an event, with a deadline.

mod agent;
mod anonymise;
mod attribution;
mod authority;
mod bad_input;
mod browser;
mod bus_tls;
mod chaos;
mod closed_loop;
mod confined;
mod dashboard;
mod dashboard_page;
mod doctor;
mod engine;
mod experiment;
mod exposition;
mod fleet;
mod gateway;
mod model;
mod otlp;
mod pace;
mod plot;
mod precedence;
mod serve;
mod shell;
mod simulate;
mod source;
mod support;
mod train;
mod up;
mod veth;
