//! Buckets of the three services.
//!
//! The client's own tries are few and short: who asks knows better than it whether to ask again
//! (`layer/retry`), and how long to wait is bounded above it (`layer/deadline`).

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::signer::Signer;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};

use super::{Access, Service};
use crate::error::{Error, Result};

/// A connection that takes longer than this to be made is not made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How often the client asks again, and how long: what "slow down" takes to pass.
const RETRIES: usize = 2;
const RETRY_TIMEOUT: Duration = Duration::from_secs(10);

type Opened = (Arc<dyn ObjectStore>, Arc<dyn Signer>);

pub(super) fn open(service: Service, name: &str, prefix: &str, access: &Access) -> Result<Opened> {
    match service {
        Service::S3 => below(prefix, s3(name, access).build()),
        Service::Google => below(prefix, google(name, access).build()),
        Service::Azure => below(prefix, azure(name, access).build()),
    }
}

fn below<S: ObjectStore + Signer>(prefix: &str, built: object_store::Result<S>) -> Result<Opened> {
    let store = built.map_err(|error| Error::invalid(error.to_string()))?;
    let prefix = Path::parse(prefix).map_err(|error| Error::invalid(error.to_string()))?;
    let store = Arc::new(PrefixStore::new(store, prefix));
    let signer: Arc<dyn Signer> = Arc::<PrefixStore<S>>::clone(&store);
    Ok((store, signer))
}

fn s3(name: &str, access: &Access) -> AmazonS3Builder {
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(name)
        // Whether the store honours it, the probe says.
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        // Not every store has the request that deletes many.
        .with_disable_bulk_delete(true)
        .with_virtual_hosted_style_request(access.virtual_hosted)
        .with_retry(retries())
        .with_client_options(client(access));
    if !access.endpoint.is_empty() {
        builder = builder.with_endpoint(&access.endpoint);
    }
    if !access.region.is_empty() {
        builder = builder.with_region(&access.region);
    }
    if !access.access_key.is_empty() {
        builder = builder
            .with_access_key_id(&access.access_key)
            .with_secret_access_key(access.secret.reveal());
    }
    builder
}

fn google(name: &str, access: &Access) -> GoogleCloudStorageBuilder {
    let mut builder = GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(name)
        .with_retry(retries())
        .with_client_options(client(access));
    if !access.endpoint.is_empty() {
        builder = builder.with_base_url(&access.endpoint);
    }
    if !access.secret.reveal().is_empty() {
        builder = builder.with_service_account_key(access.secret.reveal());
    }
    builder
}

fn azure(name: &str, access: &Access) -> MicrosoftAzureBuilder {
    let mut builder = MicrosoftAzureBuilder::from_env()
        .with_container_name(name)
        .with_retry(retries())
        .with_client_options(client(access));
    if !access.endpoint.is_empty() {
        builder = builder.with_endpoint(access.endpoint.clone());
    }
    if !access.access_key.is_empty() {
        builder = builder.with_account(&access.access_key).with_access_key(access.secret.reveal());
    }
    builder
}

fn client(access: &Access) -> ClientOptions {
    ClientOptions::new()
        .with_allow_http(access.allow_http)
        .with_connect_timeout(CONNECT_TIMEOUT)
        // A large object on a slow line takes its time; silence is for `layer/deadline`.
        .with_timeout_disabled()
}

fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: RETRIES,
        retry_timeout: RETRY_TIMEOUT,
    }
}
