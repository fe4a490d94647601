FROM rust:1.95-bookworm AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock build.rs ./
COPY migrations migrations
COPY proto proto
COPY src src
# The caches stay on the machine that builds, so the program is copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --profile dist --locked --bin syncline \
    && cp target/dist/syncline /syncline

FROM debian:bookworm-slim
COPY --from=build /syncline /usr/local/bin/syncline
# What an issuer's certificate is checked with when its keys are fetched.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# Nothing is written: all data are in PostgreSQL. `syncline dev` is not for containers.
USER 10001:10001
# Reachable from outside the container, so `serve` also wants SYNCLINE_TLS_CERT and SYNCLINE_TLS_KEY,
# or to be told SYNCLINE_ALLOW_PLAINTEXT=true, and a proxy in front.
ENV SYNCLINE_LISTEN=0.0.0.0:50051 \
    SYNCLINE_LOG_FORMAT=json
EXPOSE 50051
# Asks grpc.health.v1.Health at the port of SYNCLINE_LISTEN, as an orchestrator may do itself. It
# speaks no TLS: with TLS, put another in its place.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["sh", "-c", "exec syncline health --target http://127.0.0.1:${SYNCLINE_LISTEN##*:}"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["syncline"]
CMD ["serve"]
