//! Nothing: the tests beside this file try S3 servers of others that only seem to keep their
//! promises.
