# Caddy with the cache in it, from this checkout:
#
#   docker build -t caddy-groupcache .
#   docker run --rm caddy-groupcache groupcache keygen

FROM golang:1.26-alpine AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o /caddy ./cmd/caddy

FROM alpine:3
RUN apk add --no-cache ca-certificates mailcap && mkdir -p /config/caddy /data/caddy /etc/caddy
COPY --from=build /caddy /usr/bin/caddy
COPY Caddyfile.example /etc/caddy/Caddyfile
ENV XDG_CONFIG_HOME=/config XDG_DATA_HOME=/data
# Clients; between nodes, membership and cache traffic. The admin endpoint
# stays inside: caddy groupcache status runs in the container.
EXPOSE 80 443 443/udp 7946 7946/udp 8000
ENTRYPOINT ["caddy"]
CMD ["run", "--config", "/etc/caddy/Caddyfile"]
