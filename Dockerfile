# A builder with the toolchain, and a runtime with one binary.
#
# Dependencies are compiled in a layer of their own, from the manifests and empty
# sources, so that a change to our code recompiles our code only. It is done by
# hand because it works with every builder, the classic one without BuildKit too.
# rust-toolchain.toml is left out (.dockerignore): the image is the toolchain, and
# the components it names are for development.

# The workspace's manifests, each with empty sources. This stage runs again after
# every change, but what comes out of it, and so the layers made from it, stays.
FROM rust:1.95-slim-bookworm AS manifests
WORKDIR /src
COPY . .
RUN find . -type f ! -name Cargo.toml ! -name Cargo.lock -delete \
    && find . -type d -empty -delete \
    && for manifest in $(find . -mindepth 2 -name Cargo.toml); do \
        crate=$(dirname "$manifest") && mkdir "$crate/src" \
        && touch "$crate/src/lib.rs" && echo 'fn main() {}' > "$crate/src/main.rs"; \
    done

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
# The release profile keeps line tables for profiling, which an image need not carry.
ENV CARGO_PROFILE_RELEASE_DEBUG=false CARGO_PROFILE_RELEASE_STRIP=debuginfo
COPY --from=manifests /src .
RUN cargo build --release --locked -p fanfare-gateway && rm -rf crates

COPY crates crates
# Cargo goes by modification times, and a checkout may be older than the layer above.
RUN find crates -name '*.rs' -exec touch {} + \
    && cargo build --release --locked -p fanfare-gateway \
    && mkdir /out && cp target/release/fanfare /out/

FROM debian:bookworm-slim
COPY --from=build /out/fanfare /usr/local/bin/fanfare
# A number needs no entry in /etc/passwd, and lets Kubernetes check that it is not 0.
USER 10001:10001
# Public (WebSocket, streams, console) and internal (metrics, server API).
EXPOSE 8000 8001
# SIGTERM drains: readiness fails, clients are told to reconnect elsewhere, exit 0.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=3s --timeout=3s --start-period=5s --retries=3 CMD ["fanfare", "health"]
ENTRYPOINT ["fanfare"]
