// The suite's origin server, on a loopback port of its own choice, which it
// prints. The suite's own server.mjs listens on all addresses, writes a pid file
// and closes idle connections after five seconds, which a proxy may run into.
import http from 'node:http'
import config from 'http-cache-tests/server/handle-config.mjs'
import state from 'http-cache-tests/server/handle-state.mjs'
import test from 'http-cache-tests/server/handle-test.mjs'

const handlers = { config, state, test }

const server = http.createServer((request, response) => {
  const [, dispatch, ...segments] = new URL(request.url, 'http://origin').pathname.split('/')
  if (dispatch in handlers) {
    handlers[dispatch](segments, request, response)
  } else {
    response.writeHead(404).end()
  }
})
server.keepAliveTimeout = 0
server.listen(0, '127.0.0.1', () => console.log(server.address().port))
