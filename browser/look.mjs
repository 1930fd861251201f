// Opens the dashboard in a real browser, does what an operator would, and takes
// pictures. Its one argument is JSON:
//
//   executable  the Chromium to use
//   url         of the dashboard
//   health      what the page's head is to say, a regular expression
//   nodes       how many nodes it is to show
//   explain     a URL to explain, and
//   verdict     what that is to say
//   tag         to purge; none: nothing is purged
//   shots       the folder for the pictures, and
//   name        what their names begin with
//
// It prints what is wrong, a line each, and fails if there is anything.
import path from 'node:path'
import { chromium } from 'playwright-core'

const told = JSON.parse(process.argv[2])
const faults = []
const expect = (holds, what) => { if (!holds) faults.push(what) }

const browser = await chromium.launch({ executablePath: told.executable, args: ['--no-sandbox'] })

async function open(viewport, colorScheme) {
  const page = await browser.newPage({ viewport, colorScheme })
  page.setDefaultTimeout(30000)
  page.on('console', m => faults.push(`the console says ${m.type()}: ${m.text()}`))
  page.on('pageerror', e => faults.push(`an error in the page: ${e.message}`))
  page.on('request', r => {
    const to = new URL(r.url())
    expect(to.protocol === 'data:' || to.host === new URL(told.url).host, `a request to ${r.url()}`)
  })
  page.on('requestfailed', r => faults.push(`${r.url()} failed: ${r.failure().errorText}`))
  page.on('response', r => expect(r.status() < 400, `${r.status()} for ${r.url()}`))
  await page.goto(told.url)
  await page.waitForFunction(health => new RegExp(health).test(document.querySelector('#health').textContent), told.health)
  await page.waitForSelector('#requests svg')
  await page.waitForSelector('#ratio svg')
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)
  expect(wide <= 0, `at ${viewport.width} pixels the page is ${wide} too wide`)
  expect(await page.locator('#nodes tbody tr').count() === told.nodes, `it does not show ${told.nodes} nodes`)
  await page.waitForFunction(() => document.querySelectorAll('#missed tbody tr').length >= 2)
  for (const row of await page.locator('#missed tbody tr').all()) {
    const cells = await row.locator('td').allTextContents()
    expect(await row.isVisible() && (/^[a-z-]+$/.test(cells[3]) || parseInt(cells[2]) <= 50), `the cache serves a key that it is said not to: ${cells}`)
    const lines = await row.locator('td').first().evaluate(e => e.getClientRects().length && Math.round(e.clientHeight / parseFloat(getComputedStyle(e).lineHeight)))
    expect(lines <= 3, `at ${viewport.width} pixels a key has ${lines} lines`)
  }
  return page
}

// A picture of the page, and one of the table that one looks at first.
async function shoot(page, name) {
  await page.screenshot({ path: path.join(told.shots, `${told.name}-${name}.png`), fullPage: true })
  await page.locator('section:has(> #missed)').screenshot({ path: path.join(told.shots, `${told.name}-${name}-missed.png`) })
}
const background = page => page.evaluate(() => getComputedStyle(document.body).backgroundColor)

const light = await open({ width: 1400, height: 1000 }, 'light')
for (const [id, what] of Object.entries({ tiles: 'figures', memory: 'memory', reasons: 'reasons', fills: 'fetches', busiest: 'busy keys' })) {
  expect(await light.locator(`#${id} > *`).count() > 0, `there are no ${what}`)
}
expect(/\d %/.test(await light.locator('.tile b').first().textContent()), 'there is no hit ratio')
expect(await light.locator('#busiest tbody tr').count() > 0, 'no key is busy')

await light.fill('#explain [name=url]', told.explain)
await light.fill('#explain [name=header]', 'Accept: text/html\nAccept-Language: de')
await light.click('#explain button')
await light.waitForSelector('#explained .verdict')
const verdict = await light.locator('#explained .verdict').textContent()
expect(new RegExp(told.verdict).test(verdict), `it explains ${told.explain} by ${verdict}`)
await light.fill('#explain [name=url]', '<img src=x onerror=alert(1)>')
const answered = light.waitForResponse(r => r.url().includes('explain'))
faults.expected = faults.length
await light.click('#explain button')
expect((await answered).status() === 400, 'nonsense was explained')
await light.waitForSelector('#explained .bad')
expect(await light.locator('#explained img').count() === 0, 'what was typed became markup')
// The browser tells of the status 400; that is all it may tell of here.
faults.splice(faults.expected, faults.length, ...faults.slice(faults.expected).filter(f => !f.includes('400')))
await light.fill('#explain [name=url]', told.explain)
await light.click('#explain button')
await light.waitForSelector('#explained .verdict')

if (told.tag) {
  let purges = 0
  light.on('request', r => { if (r.method() === 'POST') purges++ })
  await light.selectOption('#purge select', 'tags')
  await light.fill('#purge [name=value]', told.tag)
  await light.click('#purge button')
  await light.click('#confirm button[value=no]')
  await light.click('#purge button')
  await light.keyboard.press('Escape')
  expect(purges === 0, 'it was purged without a confirmation')
  await light.click('#purge button')
  expect((await light.locator('#confirm-text').textContent()).includes(told.tag), 'the confirmation does not say what is purged')
  await light.click('#confirm button[value=yes]')
  await light.waitForFunction(n => document.querySelectorAll('#purged .good').length === n, told.nodes)
  expect(purges === 1, `${purges} purges`)
  await light.waitForFunction(tag => document.querySelector('#purges').textContent.includes(tag), told.tag)
}
await shoot(light, 'light')

const dark = await open({ width: 1400, height: 1000 }, 'dark')
expect(await background(dark) !== await background(light), 'dark looks like light')
await shoot(dark, 'dark')
const phone = await open({ width: 390, height: 844 }, 'light')
await shoot(phone, 'phone')

// The page's own policy keeps anything else out. What the browser says of that
// is no fault.
const before = faults.length
const injected = await light.evaluate(async () => {
  document.body.append(Object.assign(document.createElement('script'), { textContent: 'window.injected = true' }))
  const sent = await fetch('https://www.example.com/').then(() => true, () => false)
  return Boolean(window.injected) || sent
})
faults.length = before
expect(!injected, 'the policy lets in what is not of the page')

await browser.close()
for (const fault of faults) console.log(fault)
process.exit(faults.length ? 1 : 0)
