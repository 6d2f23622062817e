//! Requests against servers that live in this process: TLS with client certificates over a pipe, answers from a closure.

mod api;
mod component;
mod site;
