# Targets: `gateway` (default), and `emulator` for trying things out without a cloud.

FROM rust:1.95-slim-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
ENV SQLX_OFFLINE=true

# Dependencies in a layer of their own: it is built again only when a manifest or the lock file changes.
COPY Cargo.toml Cargo.lock ./
COPY crates/ags-client/Cargo.toml crates/ags-client/
COPY crates/ags-emulator/Cargo.toml crates/ags-emulator/
COPY crates/devstack/Cargo.toml crates/devstack/
COPY crates/envd-client/Cargo.toml crates/envd-client/
COPY crates/envd-proto/Cargo.toml crates/envd-proto/
COPY crates/tc3/Cargo.toml crates/tc3/
RUN for crate in . crates/*; do \
      mkdir -p "$crate/src/bin" && touch "$crate/src/lib.rs" && echo 'fn main() {}' > "$crate/src/main.rs"; \
    done \
 && echo 'fn main() {}' > crates/devstack/src/bin/with-postgres.rs \
 && cargo build --release --locked -p ags-gateway -p ags-emulator \
 && rm -rf src crates/*/src

COPY . .
# The stand-ins of the layer above must not look newer than the real sources.
RUN find src crates -name '*.rs' -exec touch {} + \
 && cargo build --release --locked -p ags-gateway -p ags-emulator

FROM debian:bookworm-slim AS base
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/*

FROM base AS emulator
RUN apt-get update \
 && apt-get install -y --no-install-recommends passwd procps python3 sudo \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /src/target/release/ags-emulator /src/target/release/ags-gateway /usr/local/bin/
# Root: every instance gets namespaces and users of its own. Not for production.
ENTRYPOINT ["ags-emulator"]
CMD ["serve", "--listen", "0.0.0.0:9000", "--admin-listen", "127.0.0.1:9001", "--state", "/var/lib/ags-emulator"]

FROM base AS gateway
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin gateway
COPY --from=build /src/target/release/ags-gateway /usr/local/bin/
USER 10001:10001
ENV AGS_GATEWAY__SERVER__LISTEN=0.0.0.0:8080 AGS_GATEWAY__LOG__FORMAT=json
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD ["ags-gateway", "health"]
ENTRYPOINT ["ags-gateway"]
CMD ["serve"]
