# docker build -t olivia .
# docker run -p 5454:5454 -e OLIVIA_SECURITY_PASSWORD=... olivia

FROM rust:1-slim AS build
WORKDIR /olivia
COPY Cargo.toml Cargo.lock olivia.toml ./
COPY src src
COPY benches benches
RUN cargo build --release --locked

FROM debian:stable-slim
COPY --from=build /olivia/target/release/olivia /usr/local/bin/olivia
USER 65534:65534
# All addresses of the container; without a password the node then refuses to start.
ENV OLIVIA_BIND=0.0.0.0
EXPOSE 5454
HEALTHCHECK CMD ["olivia", "ask", "127.0.0.1:5454", "PING"]
ENTRYPOINT ["olivia"]
