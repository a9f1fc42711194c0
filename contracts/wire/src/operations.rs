//! Every HTTP operation of both daemons, as data: the OpenAPI documents are rendered from it, and
//! a test asks each daemon's router for each of them.

/// Which daemon serves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Daemon {
    /// The control plane.
    Orchestratord,
    /// The supervisor.
    PoolManagerd,
}

/// Who may call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anyone who reaches the port.
    Open,
    /// A data token, where tokens are configured.
    Data,
    /// A control token, where tokens are configured.
    Control,
}

/// A body: its media type and the name of its schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// No body.
    None,
    /// `application/json` of the named schema.
    Json(&'static str),
    /// `text/event-stream` whose data is the named schema.
    Sse(&'static str),
    /// JSON of the first schema, or server-sent events whose data is the second when the request asks for a
    /// stream.
    JsonOrSse(&'static str, &'static str),
    /// `application/openmetrics-text`.
    Metrics,
    /// `application/octet-stream`.
    Bytes,
    /// Plain text, or server-sent events whose data is the named schema when the request accepts or
    /// follows them.
    TextOrSse(&'static str),
}

/// One operation.
#[derive(Debug, Clone, Copy)]
pub struct Operation {
    /// Who serves it.
    pub daemon: Daemon,
    /// `GET`, `POST`, `DELETE`.
    pub method: &'static str,
    /// With `{id}` for parameters.
    pub path: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Who may call it.
    pub access: Access,
    /// What it takes.
    pub request: Body,
    /// Query parameters: name and meaning.
    pub query: &'static [(&'static str, &'static str)],
    /// Success status and body.
    pub success: (u16, Body),
    /// Statuses that come with an error.
    pub errors: &'static [u16],
    /// The schema of its errors: the envelope, but where the clients of others expect another one.
    pub error: &'static str,
}

/// Every operation of both daemons.
#[must_use]
pub fn all() -> &'static [Operation] {
    OPERATIONS
}

/// The operations of one daemon.
pub fn of(daemon: Daemon) -> impl Iterator<Item = &'static Operation> {
    OPERATIONS.iter().filter(move |op| op.daemon == daemon)
}

use Access::{Control, Data, Open};
use Body::{Bytes, Json, JsonOrSse, Metrics, None as Empty, Sse, TextOrSse};

const fn op(
    daemon: Daemon,
    access: Access,
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    success: (u16, Body),
    errors: &'static [u16],
) -> Operation {
    let (request, query, error) = (Empty, &[] as &[_], "ErrorEnvelope");
    Operation { daemon, method, path, summary, access, request, query, success, errors, error }
}

const fn takes(mut operation: Operation, request: Body) -> Operation {
    operation.request = request;
    operation
}

const fn fails_with(mut operation: Operation, error: &'static str) -> Operation {
    operation.error = error;
    operation
}

const fn with_query(mut operation: Operation, query: &'static [(&'static str, &'static str)]) -> Operation {
    operation.query = query;
    operation
}

const ORCHD: Daemon = Daemon::Orchestratord;
const POOLD: Daemon = Daemon::PoolManagerd;

const LOGS_QUERY: &[(&str, &str)] = &[
    ("tail", "So many of the last lines of each replica, at most 10000, default 200"),
    ("follow", "true goes on with what is written from now"),
    ("replica", "Only this replica"),
    (
        "engine",
        "current (the default), previous (whose place it took in a reload, or what was set aside of a long log) or candidate (tried last beside one that serves, and not taken)",
    ),
];

const OPERATIONS: &[Operation] = &[
    takes(
        op(
            ORCHD,
            Data,
            "POST",
            "/v2/tasks",
            "Submit a task",
            (202, Json("Accepted")),
            &[400, 401, 404, 409, 413, 429, 503],
        ),
        Json("TaskRequest"),
    ),
    with_query(
        op(ORCHD, Data, "GET", "/v2/tasks", "Tasks, newest first", (200, Json("TaskList")), &[400, 401]),
        &[
            ("state", "Only tasks in this state"),
            ("limit", "At most this many, 1 to 1000, default 100"),
            ("cursor", "The next_cursor of the page before"),
        ],
    ),
    op(ORCHD, Data, "GET", "/v2/tasks/{id}", "One task", (200, Json("TaskView")), &[401, 404]),
    op(ORCHD, Data, "DELETE", "/v2/tasks/{id}", "Cancel a task", (202, Json("TaskView")), &[401, 404]),
    op(ORCHD, Data, "POST", "/v2/tasks/{id}/cancel", "Cancel a task", (202, Json("TaskView")), &[401, 404]),
    takes(
        op(
            ORCHD,
            Data,
            "POST",
            "/v2/artifacts",
            "Store bytes under their digest",
            (201, Json("ArtifactStored")),
            &[400, 401, 413, 503],
        ),
        Bytes,
    ),
    op(
        ORCHD,
        Data,
        "GET",
        "/v2/artifacts/{sha256}",
        "Bytes that were stored; of a transcript, JSON of the schema Transcript",
        (200, Bytes),
        &[401, 404, 503],
    ),
    op(ORCHD, Data, "GET", "/v2/sessions/{id}", "One session", (200, Json("SessionView")), &[401, 404]),
    op(
        ORCHD,
        Data,
        "DELETE",
        "/v2/sessions/{id}",
        "Forget a session; its tasks go on",
        (200, Json("SessionView")),
        &[401, 404],
    ),
    with_query(
        op(
            ORCHD,
            Data,
            "GET",
            "/v2/tasks/{id}/events",
            "Follow a task",
            (200, Sse("TaskEvent")),
            &[400, 401, 404],
        ),
        &[
            ("verbose", "true adds queued, prep and metrics events"),
            ("after", "Resume after this event id (opaque), as Last-Event-ID does"),
        ],
    ),
    op(ORCHD, Data, "GET", "/v2/pools", "Pools with their replicas", (200, Json("PoolList")), &[401]),
    op(ORCHD, Data, "GET", "/v2/pools/{id}", "One pool", (200, Json("PoolView")), &[401, 404]),
    op(
        ORCHD,
        Data,
        "GET",
        "/v2/pools/{id}/health",
        "A pool's health",
        (200, Json("PoolHealth")),
        &[401, 404],
    ),
    op(
        ORCHD,
        Control,
        "GET",
        "/control/pools/{id}/health",
        "A pool's health",
        (200, Json("PoolHealth")),
        &[401, 404],
    ),
    op(
        ORCHD,
        Data,
        "GET",
        "/v1/pools/{id}/health",
        "A pool's health",
        (200, Json("PoolHealth")),
        &[401, 404],
    ),
    takes(
        op(
            ORCHD,
            Control,
            "POST",
            "/v2/pools/{id}/preload",
            "Ask for a pool to run: one that failed or was stopped tries again",
            (202, Json("PoolView")),
            &[400, 401, 403, 404, 409, 503],
        ),
        Json("PreloadRequest"),
    ),
    takes(
        op(
            ORCHD,
            Control,
            "POST",
            "/v2/pools/{id}/drain",
            "Take nothing new, finish what runs until the deadline, then stop",
            (202, Json("OperationAccepted")),
            &[400, 401, 403, 404, 409, 503],
        ),
        Json("DrainRequest"),
    ),
    takes(
        op(
            ORCHD,
            Control,
            "POST",
            "/v2/pools/{id}/reload",
            "Replace the engine, and go back to the old one if the new one does not serve",
            (202, Json("OperationAccepted")),
            &[400, 401, 403, 404, 409, 422, 503],
        ),
        Json("ReloadRequest"),
    ),
    op(
        ORCHD,
        Control,
        "POST",
        "/v2/pools/{id}/undrain",
        "Serve again after a drain or a stop; calls off a drain that goes on",
        (202, Json("OperationAccepted")),
        &[401, 403, 404, 409, 503],
    ),
    op(
        ORCHD,
        Control,
        "POST",
        "/v2/pools/{id}/reset",
        "Close the breaker and start again at once",
        (202, Json("OperationAccepted")),
        &[401, 403, 404, 409, 503],
    ),
    op(
        ORCHD,
        Control,
        "GET",
        "/v2/operations",
        "Operations on pools, newest first",
        (200, Json("OperationList")),
        &[401, 403, 503],
    ),
    op(
        ORCHD,
        Control,
        "GET",
        "/v2/operations/{id}",
        "One operation",
        (200, Json("OperationView")),
        &[401, 403, 404, 503],
    ),
    takes(
        op(
            ORCHD,
            Control,
            "POST",
            "/v2/workers/register",
            "Bind an engine that someone else runs; it takes work once it answers our own probe",
            (202, Json("WorkerView")),
            &[400, 401, 403, 409, 413, 503],
        ),
        Json("RegisterWorker"),
    ),
    op(
        ORCHD,
        Control,
        "GET",
        "/v2/events",
        "Everything a dashboard needs: all of it as it is, `synced`, then what changes",
        (200, Sse("DashboardEvent")),
        &[401, 403],
    ),
    op(ORCHD, Control, "GET", "/v2/workers", "Registered engines", (200, Json("WorkerList")), &[401, 403]),
    op(
        ORCHD,
        Control,
        "POST",
        "/v2/workers/{pool}/{replica}/heartbeat",
        "Say that a registered engine is still meant to be used",
        (200, Json("WorkerView")),
        &[401, 403, 404],
    ),
    op(
        ORCHD,
        Control,
        "DELETE",
        "/v2/workers/{pool}/{replica}",
        "Unbind a registered engine: it gets nothing new, and what runs on it ends",
        (200, Json("WorkerView")),
        &[401, 403, 404, 503],
    ),
    op(
        ORCHD,
        Control,
        "GET",
        "/v2/devices",
        "Graphics cards of this machine, as pool-managerd sees them",
        (200, Json("DeviceList")),
        &[401, 403, 503],
    ),
    op(
        ORCHD,
        Data,
        "GET",
        "/v2/meta/capabilities",
        "What can be asked for here now, and within which limits",
        (200, Json("Capabilities")),
        &[401],
    ),
    op(
        ORCHD,
        Control,
        "GET",
        "/v2/usage",
        "What each token has used of each pool, over restarts",
        (200, Json("UsageReport")),
        &[401, 403],
    ),
    op(ORCHD, Data, "GET", "/v2/meta/version", "Version of this daemon", (200, Json("Version")), &[401]),
    op(
        ORCHD,
        Data,
        "GET",
        "/v2/openapi.json",
        "This document: what is served, as OpenAPI 3.1",
        (200, Json("OpenApiDocument")),
        &[401],
    ),
    op(
        ORCHD,
        Data,
        "GET",
        "/v1/models",
        "Models, as OpenAI and Anthropic list them",
        (200, Json("ModelList")),
        &[401],
    ),
    op(
        ORCHD,
        Data,
        "GET",
        "/v1/models/{id}",
        "One model, as OpenAI shows it",
        (200, Json("ModelCard")),
        &[401, 404],
    ),
    takes(
        op(
            ORCHD,
            Data,
            "POST",
            "/v1/chat/completions",
            "OpenAI chat completions",
            (200, JsonOrSse("ChatCompletion", "ChatCompletionFrame")),
            &[400, 401, 404, 413, 429, 500, 503],
        ),
        Json("ChatCompletionRequest"),
    ),
    takes(
        op(
            ORCHD,
            Data,
            "POST",
            "/v1/completions",
            "OpenAI text completions",
            (200, JsonOrSse("TextCompletion", "TextCompletionFrame")),
            &[400, 401, 404, 413, 429, 500, 503],
        ),
        Json("TextCompletionRequest"),
    ),
    takes(
        op(
            ORCHD,
            Data,
            "POST",
            "/v1/responses",
            "OpenAI responses, of which nothing is kept",
            (200, JsonOrSse("ResponsesAnswer", "ResponsesEvent")),
            &[400, 401, 404, 413, 429, 500, 503],
        ),
        Json("ResponsesRequest"),
    ),
    fails_with(
        takes(
            op(
                ORCHD,
                Data,
                "POST",
                "/v1/messages",
                "Anthropic messages",
                (200, JsonOrSse("MessagesAnswer", "MessagesEvent")),
                &[400, 401, 404, 413, 429, 500, 503],
            ),
            Json("MessagesRequest"),
        ),
        "MessagesError",
    ),
    fails_with(
        takes(
            op(
                ORCHD,
                Data,
                "POST",
                "/v1/messages/count_tokens",
                "How many tokens the prompt of an Anthropic message has",
                (200, Json("TokenCount")),
                &[400, 401, 404, 413, 503],
            ),
            Json("CountTokensRequest"),
        ),
        "MessagesError",
    ),
    takes(
        op(
            ORCHD,
            Data,
            "POST",
            "/v1/embeddings",
            "OpenAI embeddings",
            (200, Json("EmbeddingList")),
            &[400, 401, 404, 413, 429, 500, 503],
        ),
        Json("EmbeddingsRequest"),
    ),
    takes(
        op(
            ORCHD,
            Data,
            "POST",
            "/v1/rerank",
            "Documents by relevance to a query",
            (200, Json("Reranked")),
            &[400, 401, 404, 413, 429, 500, 503],
        ),
        Json("RerankRequest"),
    ),
    op(ORCHD, Open, "GET", "/health", "The process is up", (200, Json("Health")), &[]),
    op(ORCHD, Open, "GET", "/livez", "The process is up", (200, Json("Health")), &[]),
    op(ORCHD, Open, "GET", "/ready", "At least one pool is ready", (200, Json("Readiness")), &[503]),
    op(ORCHD, Open, "GET", "/readyz", "At least one pool is ready", (200, Json("Readiness")), &[503]),
    with_query(
        op(
            ORCHD,
            Control,
            "GET",
            "/v2/pools/{id}/logs",
            "What a pool's engines write",
            (200, TextOrSse("LogLine")),
            &[400, 401, 403, 404, 429, 503],
        ),
        LOGS_QUERY,
    ),
    op(ORCHD, Control, "GET", "/metrics", "Metrics, OpenMetrics text", (200, Metrics), &[401]),
    op(
        ORCHD,
        Control,
        "GET",
        "/v2/catalog/models",
        "Models that are here, the last used first",
        (200, Json("CatalogList")),
        &[401, 403, 404, 503],
    ),
    op(
        ORCHD,
        Control,
        "GET",
        "/v2/catalog/models/{id}",
        "One model, by its digest or at least the first 8 digits of it",
        (200, Json("CatalogModel")),
        &[401, 403, 404, 503],
    ),
    op(
        ORCHD,
        Control,
        "POST",
        "/v2/catalog/models/{id}/verify",
        "Read a model again and compare it with what was fetched",
        (200, Json("CatalogVerified")),
        &[401, 403, 404, 409, 503],
    ),
    op(
        ORCHD,
        Control,
        "DELETE",
        "/v2/catalog/models/{id}",
        "Remove a model that is neither pinned nor used",
        (200, Json("CatalogRemoved")),
        &[401, 403, 404, 409, 503],
    ),
    op(POOLD, Open, "GET", "/health", "The process is up", (200, Json("Health")), &[]),
    op(POOLD, Control, "GET", "/ready", "At least one pool is ready", (200, Json("Readiness")), &[401, 503]),
    op(
        POOLD,
        Control,
        "GET",
        "/v2/devices",
        "Graphics cards of this machine",
        (200, Json("DeviceList")),
        &[401],
    ),
    op(
        POOLD,
        Control,
        "GET",
        "/v2/catalog/models",
        "Models that are here, the last used first",
        (200, Json("CatalogList")),
        &[401, 404, 503],
    ),
    op(
        POOLD,
        Control,
        "GET",
        "/v2/catalog/models/{id}",
        "One model, by its digest or at least the first 8 digits of it",
        (200, Json("CatalogModel")),
        &[401, 404, 503],
    ),
    op(
        POOLD,
        Control,
        "POST",
        "/v2/catalog/models/{id}/verify",
        "Read a model again and compare it with what was fetched",
        (200, Json("CatalogVerified")),
        &[401, 404, 409, 503],
    ),
    op(
        POOLD,
        Control,
        "DELETE",
        "/v2/catalog/models/{id}",
        "Remove a model that is neither pinned nor used",
        (200, Json("CatalogRemoved")),
        &[401, 404, 409, 503],
    ),
    op(POOLD, Control, "GET", "/v2/pools", "Pools with their replicas", (200, Json("PoolList")), &[401]),
    op(POOLD, Control, "GET", "/v2/pools/{id}", "One pool", (200, Json("PoolView")), &[401, 404]),
    takes(
        op(
            POOLD,
            Control,
            "POST",
            "/v2/pools/{id}/preload",
            "Prepare and start a pool's replicas",
            (202, Json("PoolView")),
            &[400, 401, 404, 409],
        ),
        Json("PreloadRequest"),
    ),
    takes(
        op(
            POOLD,
            Control,
            "POST",
            "/v2/pools/{id}/drain",
            "Take nothing new, finish what runs until the deadline, then stop",
            (202, Json("OperationAccepted")),
            &[400, 401, 404, 409],
        ),
        Json("DrainRequest"),
    ),
    takes(
        op(
            POOLD,
            Control,
            "POST",
            "/v2/pools/{id}/reload",
            "Replace the engine, and go back to the old one if the new one does not serve",
            (202, Json("OperationAccepted")),
            &[400, 401, 404, 409, 422],
        ),
        Json("ReloadRequest"),
    ),
    op(
        POOLD,
        Control,
        "POST",
        "/v2/pools/{id}/undrain",
        "Serve again after a drain or a stop; calls off a drain that goes on",
        (202, Json("OperationAccepted")),
        &[401, 404, 409],
    ),
    op(
        POOLD,
        Control,
        "POST",
        "/v2/pools/{id}/reset",
        "Close the breaker and start again at once",
        (202, Json("OperationAccepted")),
        &[401, 404, 409],
    ),
    op(
        POOLD,
        Control,
        "POST",
        "/v2/pools/{id}/stop",
        "Stop a pool's replicas now",
        (202, Json("OperationAccepted")),
        &[401, 404, 409],
    ),
    op(
        POOLD,
        Control,
        "GET",
        "/v2/operations",
        "Operations on pools, newest first",
        (200, Json("OperationList")),
        &[401],
    ),
    op(
        POOLD,
        Control,
        "GET",
        "/v2/operations/{id}",
        "One operation",
        (200, Json("OperationView")),
        &[401, 404],
    ),
    with_query(
        op(
            POOLD,
            Control,
            "GET",
            "/v2/pools/{id}/logs",
            "What a pool's engines write",
            (200, TextOrSse("LogLine")),
            &[400, 401, 404, 429],
        ),
        LOGS_QUERY,
    ),
    op(POOLD, Control, "GET", "/metrics", "Metrics, OpenMetrics text", (200, Metrics), &[401]),
];
