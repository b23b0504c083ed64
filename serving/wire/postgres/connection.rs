//! One connection: who it is, what it was told to remember, and how its statement is cancelled.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use datafusion_postgres::pgwire::api::auth::sasl::SASLAuthStartupHandler;
use datafusion_postgres::pgwire::api::auth::sasl::scram::{SCRAM_ITERATIONS, ScramAuth, gen_salted_password};
use datafusion_postgres::pgwire::api::auth::{
    AuthSource, DefaultServerParameterProvider, LoginInfo, Password, StartupHandler, finish_authentication,
    protocol_negotiation, save_startup_parameters_to_metadata,
};
use datafusion_postgres::pgwire::api::cancel::CancelHandler;
use datafusion_postgres::pgwire::api::query::{ExtendedQueryHandler, SimpleQueryHandler};
use datafusion_postgres::pgwire::api::{
    ClientInfo, PgWireServerHandlers, PidSecretKeyGenerator, RandomPidSecretKeyGenerator,
};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::cancel::CancelRequest;
use datafusion_postgres::pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use futures::Sink;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::cursor::Cursors;
use super::failure::fatal;
use super::query::Queries;
use super::variables::{SEARCH_PATH, SERVER_VERSION, Variables};

/// The numbers and keys by which statements are cancelled, over all connections.
static KEYS: LazyLock<Arc<RandomPidSecretKeyGenerator>> = LazyLock::new(Arc::default);

/// What a connection remembers from statement to statement.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) variables: Mutex<Variables>,
    pub(crate) cursors: tokio::sync::Mutex<Cursors>,
    /// Names of its prepared statements.
    prepared: Mutex<BTreeSet<String>>,
}

impl Memory {
    /// The memory of a client that was let in.
    ///
    /// # Errors
    /// For one that was not.
    pub(crate) fn of<C: ClientInfo>(client: &C) -> PgWireResult<Arc<Self>> {
        client.session_extensions().get::<Self>().ok_or_else(|| fatal("28000", "log in first"))
    }

    pub(crate) fn variables(&self) -> MutexGuard<'_, Variables> {
        self.variables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn prepared(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the name of a prepared statement; whether there is room for it.
    pub(crate) fn prepare(&self, name: &str, most: usize) -> bool {
        let mut prepared = self.prepared();
        prepared.contains(name) || prepared.len() < most && prepared.insert(name.to_owned())
    }

    /// A prepared statement is gone.
    pub(crate) fn forget(&self, name: &str) {
        self.prepared().remove(name);
    }

    /// The names of all prepared statements, which are gone.
    pub(crate) fn forget_all(&self) -> Vec<String> {
        std::mem::take(&mut *self.prepared()).into_iter().collect()
    }
}

type Key = (i32, Bytes);

/// The statements that run, by the keys of their connections.
#[derive(Default)]
pub(crate) struct Cancels {
    running: Mutex<BTreeMap<Key, (u64, CancellationToken)>>,
    ended: Notify,
}

/// A statement that can be cancelled until this is dropped.
pub(crate) struct Cancellable {
    cancels: Arc<Cancels>,
    key: Key,
    number: u64,
    pub(crate) token: CancellationToken,
}

impl Cancels {
    fn running(&self) -> MutexGuard<'_, BTreeMap<Key, (u64, CancellationToken)>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A statement of a client begins. One of the same client that is still being read, as of a cursor, is no longer the one
    /// that a request cancels.
    pub(crate) fn begin<C: ClientInfo>(self: &Arc<Self>, client: &C) -> Cancellable {
        let (pid, secret) = client.pid_and_secret_key();
        let (key, token) = ((pid, secret.to_bytes()), CancellationToken::new());
        let mut running = self.running();
        let number = running.get(&key).map_or(0, |(number, _)| number + 1);
        running.insert(key.clone(), (number, token.clone()));
        Cancellable { cancels: self.clone(), key, number, token }
    }

    /// Whether any statement runs.
    pub(crate) fn any(&self) -> bool {
        !self.running().is_empty()
    }

    /// Waits until a statement ends.
    pub(crate) async fn ended(&self) {
        self.ended.notified().await;
    }
}

impl Drop for Cancellable {
    fn drop(&mut self) {
        let mut running = self.cancels.running();
        if running.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            running.remove(&self.key);
        }
        self.token.cancel();
        self.cancels.ended.notify_one();
    }
}

#[async_trait]
impl CancelHandler for Cancels {
    async fn on_cancel_request(&self, request: CancelRequest) {
        if let Some((_, token)) = self.running().get(&(request.pid, request.secret_key.to_bytes())) {
            token.cancel();
        }
    }
}

/// What answers one connection.
pub(crate) struct Handlers {
    shared: Arc<Shared>,
    door: Arc<Door>,
    queries: Arc<Queries>,
}

impl Handlers {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let door = Arc::new(Door::new(shared.token.clone()));
        let queries = Arc::new(Queries::new(shared.clone()));
        Self { shared, door, queries }
    }
}

impl PgWireServerHandlers for Handlers {
    fn simple_query_handler(&self) -> Arc<impl SimpleQueryHandler> {
        self.queries.clone()
    }

    fn extended_query_handler(&self) -> Arc<impl ExtendedQueryHandler> {
        self.queries.clone()
    }

    fn startup_handler(&self) -> Arc<impl StartupHandler> {
        self.door.clone()
    }

    fn cancel_handler(&self) -> Arc<impl CancelHandler> {
        self.shared.cancels.clone()
    }
}

/// Lets clients in: any where there is no token, else who proves by SCRAM to know it, under any user name.
pub(crate) struct Door {
    parameters: Arc<DefaultServerParameterProvider>,
    scram: Option<SASLAuthStartupHandler<DefaultServerParameterProvider>>,
}

impl Door {
    fn new(token: Option<String>) -> Self {
        let mut parameters = DefaultServerParameterProvider::default();
        parameters.server_version = SERVER_VERSION.to_owned();
        parameters.search_path = SEARCH_PATH.to_owned();
        parameters.is_superuser = false;
        parameters.default_transaction_read_only = true;
        parameters.time_zone = "UTC".to_owned();
        let parameters = Arc::new(parameters);
        let scram = token.map(|token| {
            SASLAuthStartupHandler::new(parameters.clone())
                .with_scram(ScramAuth::new(Arc::new(Token(token))))
                .with_pid_secret_key_generator(KEYS.clone())
        });
        Self { parameters, scram }
    }
}

#[async_trait]
impl StartupHandler for Door {
    async fn on_startup<C>(&self, client: &mut C, message: PgWireFrontendMessage) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let (is_startup, scram) = (matches!(message, PgWireFrontendMessage::Startup(_)), self.scram.as_ref());
        let done = match (scram, message) {
            (Some(scram), message) => scram.on_startup(client, message).await,
            (None, PgWireFrontendMessage::Startup(ref startup)) => {
                protocol_negotiation(client, startup).await?;
                save_startup_parameters_to_metadata(client, startup);
                let (pid, secret) = KEYS.generate(client);
                client.set_pid_and_secret_key(pid, secret);
                finish_authentication(client, self.parameters.as_ref()).await
            }
            (None, _) => Ok(()),
        };
        if let Err(error) = done {
            // After any other error the connection would count as let in.
            let told = match error {
                PgWireError::UnsupportedProtocolVersion(..) => fatal("08P01", error.to_string()),
                _ => fatal("28P01", "the password is wrong: it must be the setting `serving.token`"),
            };
            return Err(told);
        }
        let let_in = scram.is_none() && is_startup || client.pid_and_secret_key().0 != 0;
        if let_in {
            let memory = Memory::default();
            memory.variables().begin(client.metadata());
            client.session_extensions().insert(memory);
        }
        Ok(())
    }
}

/// The token as SCRAM needs it.
struct Token(String);

impl Debug for Token {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("***")
    }
}

#[async_trait]
impl AuthSource for Token {
    async fn get_password(&self, _login: &LoginInfo) -> PgWireResult<Password> {
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).map_err(|cause| fatal("58000", format!("no random numbers: {cause}")))?;
        let salted = gen_salted_password(&self.0, &salt, SCRAM_ITERATIONS);
        Ok(Password::new(Some(salt.to_vec()), salted))
    }
}
