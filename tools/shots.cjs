// Opens the viewers and takes pictures; see shots.sh, which says where everything is.
const { chromium } = require('playwright-core')
const fs = require('fs')
const http = require('http')
const path = require('path')
const { OUT, CHROMIUM, TRACE, PPROF, NODE_PATH } = process.env
const dist = path.join(NODE_PATH, 'speedscope/dist/release')
const types = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.wasm': 'application/wasm' }
let bad = 0

function check(name, wrong) {
  console.log(wrong ? `not ok ${name}: ${wrong}` : `ok ${name}`)
  bad |= wrong ? 1 : 0
}

// speedscope's files and the profile, from one place.
const server = http.createServer((request, response) => {
  const name = decodeURIComponent(request.url.split('?')[0])
  fs.readFile(name === '/cpu.pb' ? path.join(OUT, 'cpu.pb') : path.join(dist, path.normalize(name)), (error, data) => {
    response.writeHead(error ? 404 : 200, { 'Content-Type': types[path.extname(name)] || 'application/octet-stream' })
    response.end(data)
  })
})

async function speedscope(browser) {
  const page = await browser.newPage({ viewport: { width: 1400, height: 800 } })
  const at = `http://127.0.0.1:${server.address().port}`
  await page.goto(`${at}/index.html#profileURL=${encodeURIComponent(at + '/cpu.pb')}`)
  await page.getByText('Left Heavy').waitFor()
  await page.keyboard.press('2')
  await page.waitForTimeout(1000)
  await page.screenshot({ path: path.join(OUT, 'speedscope-flame.png') })
  await page.keyboard.press('3') // a table, sorted by the functions' own time
  const row = page.locator('tbody tr, table tr').filter({ hasText: '%' }).first()
  await row.waitFor()
  const first = await row.textContent()
  await page.screenshot({ path: path.join(OUT, 'speedscope-table.png') })
  check('speedscope_shows_the_hot_function_first', first.includes('hot_function') ? '' : first)
}

async function shot(browser, name, url, text) {
  const page = await browser.newPage({ viewport: { width: 1400, height: 900 } })
  const answer = await page.goto(url)
  await page.waitForTimeout(3000) // pages that draw themselves
  await page.screenshot({ path: path.join(OUT, name + '.png') })
  const body = await page.textContent('body')
  check(name, answer.status() !== 200 ? answer.status() : body.includes(text) ? '' : `no "${text}"`)
}

server.listen(0, '127.0.0.1', async () => {
  const gl = ['--use-gl=angle', '--use-angle=swiftshader', '--enable-unsafe-swiftshader'] // speedscope draws with WebGL
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox', ...gl] })
  try {
    await speedscope(browser)
    await shot(browser, 'pprof-flame', `${PPROF}/ui/flamegraph`, 'hot_function')
    await shot(browser, 'pprof-top', `${PPROF}/ui/top`, 'hot_function')
    await shot(browser, 'trace-timeline', `${TRACE}/trace`, '')
    await shot(browser, 'trace-fibers', `${TRACE}/goroutines`, 'worker')
    await shot(browser, 'trace-tasks', `${TRACE}/usertasks`, 'turn')
    // its plot comes from the network, which need not be there
    await shot(browser, 'trace-mmu', `${TRACE}/mmu`, 'Background workers')
  } catch (error) {
    check('shots', String(error))
  }
  await browser.close()
  server.close()
  process.exit(bad)
})
