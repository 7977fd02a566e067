//! A region follows the repos of another one.
