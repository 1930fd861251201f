// The suite's client. It runs the tests against one address, and writes a file
// with what each test is and what became of it. Its one argument is JSON:
//
//   base     the address under test
//   results  the file to write
//   ids      the tests to run; without it, all that are not for browsers only
//   dump     print all requests and responses
import fs from 'node:fs'
import http from 'node:http'
import fetch from 'node-fetch'
import { getResults, runTests } from 'http-cache-tests/client/runner.mjs'
import suites from 'http-cache-tests/tests/index.mjs'
import surrogate from 'http-cache-tests/tests/surrogate-control.mjs'

const { base, results, ids, dump } = JSON.parse(process.argv[2])

// One connection for every request, so that each can go to another node, and
// no wait without an end.
const agent = new http.Agent({ keepAlive: false })
const bounded = (url, init) => fetch(url, { ...init, agent, timeout: 20000 })

const tests = []
const selected = []
for (const suite of [...suites, surrogate]) {
  const mine = suite.tests.filter(test => !test.browser_only && (!ids || ids.includes(test.id)))
  for (const test of mine) {
    test.dump = dump
    tests.push({
      id: test.id,
      section: suite.name,
      kind: test.kind || 'required',
      depends_on: test.depends_on || []
    })
  }
  selected.push({ ...suite, tests: mine })
}

await runTests(selected, bounded, false, base)
const outcome = getResults()
for (const test of tests) {
  const result = outcome[test.id]
  test.passed = result === true
  if (!test.passed) [test.error, test.message] = result
}
fs.writeFileSync(results, JSON.stringify(tests))
