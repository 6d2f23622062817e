//! The workstation is the machine on which certroll runs: its files and its programs.
//!
//! What touches them is here, so that everything above works on text; the face calls it first, to read the cluster.yml.

pub mod config_file;
