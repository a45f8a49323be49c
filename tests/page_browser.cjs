// See page_browser.sh. AT: the page of kv under load; TOKEN_AT, TOKEN: another that wants a token; CHROMIUM; SHOTS: where pictures go, or nothing.
//
// What the page shows is compared with what it was told: it is paused, and then the last answer to each of its questions is what must stand there.
const { chromium } = require('playwright-core')
const path = require('path')
const { AT, TOKEN_AT, TOKEN, CHROMIUM, SHOTS, CLIENTS } = process.env
let bad = 0

function check(name, wrong) {
  console.log(wrong ? `not ok ${name}: ${String(wrong).slice(0, 400)}` : `ok ${name}`)
  bad |= wrong ? 1 : 0
}

// Waits until fn says that nothing is wrong, or tells what was at the end.
async function until(fn, ms = 15000) {
  let wrong
  for (const end = Date.now() + ms; Date.now() < end; await new Promise((done) => setTimeout(done, 50))) {
    try {
      if (!(wrong = await fn())) return ''
    } catch (error) {
      wrong = String(error)
    }
  }
  return String(wrong)
}

const differ = (a, b) =>
  JSON.stringify(a) === JSON.stringify(b) ? '' : `${JSON.stringify(a).slice(0, 200)}, and not ${JSON.stringify(b).slice(0, 200)}`
const same = (shown, told) => (String(shown) === String(told) ? '' : `${shown}, and not ${told}`)

// ---- the page's own formats, written anew ----
const en = new Intl.NumberFormat('en')
function digits(v) {
  return v.toFixed(v === 0 || v >= 99.95 ? 0 : v >= 9.995 ? 1 : 2)
}
function bytes(v) {
  v = Number(v)
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let i = 0
  while (v >= 1023.5 && i < 4) ((v /= 1024), i++)
  return `${i ? digits(v) : Math.round(v)} ${units[i]}`
}

// ---- a page that is listened to ----
async function open(browser, options, url = AT) {
  const context = await browser.newContext({ viewport: { width: 1360, height: 900 }, ...options })
  const page = await context.newPage()
  const heard = new Map() // last answers, by path
  const trouble = []
  const origin = new URL(url).origin
  let asked = 0
  page.on('console', (m) => m.type() === 'error' && !page.ignoring && trouble.push(`console: ${m.text()}`))
  page.on('pageerror', (e) => trouble.push(`error: ${e.message}`))
  page.on('request', (r) => {
    asked++
    if (!/^(data|blob):/.test(r.url()) && new URL(r.url()).origin !== origin) trouble.push(`a request to ${r.url()}`)
  })
  page.on('response', async (r) => {
    const at = new URL(r.url())
    if (!/\/debug\/(api|heap)/.test(at.pathname)) return
    const text = await r.text().catch(() => '')
    if (r.status() >= 500) trouble.push(`${at.pathname}: ${text}`)
    const name = at.pathname.endsWith('/debug/heap') ? (at.search.includes('why') ? 'why' : 'dump') : at.pathname.replace(/.*\//, '')
    if (r.ok() && text.startsWith('{')) heard.set(name, JSON.parse(text))
  })
  await page.addInitScript(() => {
    window.violations = []
    document.addEventListener('securitypolicyviolation', (e) => window.violations.push(`${e.violatedDirective} ${e.blockedURI}`))
    window.shifts = []
    new PerformanceObserver((list) => list.getEntries().forEach((e) => window.shifts.push(e))).observe({ type: 'layout-shift', buffered: true })
  })
  await page.goto(url)
  await page.locator('.status[data-is=live]').waitFor()
  return { page, context, heard, trouble, asked: () => asked }
}

const go = async (page, tab) => {
  await page.locator(`#tab-${tab}`).click()
  await page.locator(`#tab-${tab}[aria-selected=true]`).waitFor()
}
const pause = async (page) => {
  await page.getByRole('banner').getByRole('button', { name: 'Pause' }).click()
  await page.locator('.status[data-is=paused]').waitFor()
}
const resume = async (page) => {
  await page.getByRole('banner').getByRole('button', { name: 'Resume' }).click()
  await page.locator('.status[data-is=live]').waitFor()
}
const tile = (page, id) => page.locator(`[data-tile=${id}] [data-value]`).innerText()
const texts = (page, selector) => page.locator(selector).allInnerTexts()
const attributes = (page, selector, name) => page.locator(selector).evaluateAll((all, n) => all.map((e) => e.getAttribute(n)), name)
const curves = async (page) => SHOTS && page.waitForTimeout(20000) // a picture without them tells little
const shot = async (page, name) => SHOTS && page.screenshot({ path: path.join(SHOTS, `page-${name}.png`) })

// Texts whose colour is too near to their ground's: less than 4.5:1, or 3:1 where they are large.
function pale() {
  const parse = (text) => (text.match(/[\d.]+/g) || []).map(Number)
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((c) => (c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4))
    return 0.2126 * x + 0.7152 * y + 0.0722 * z
  }
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor)
      if (c.length === 3 || c[3] === 1) return c
    }
    return [255, 255, 255]
  }
  const found = []
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())
    const style = getComputedStyle(e)
    if (!own || !e.getClientRects().length || style.visibility === 'hidden' || e.closest('.unseen, .skip, svg, [disabled]')) continue
    const a = light(parse(style.color)),
      b = light(ground(e))
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)
    const size = parseFloat(style.fontSize)
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700)
    if (ratio < (large ? 3 : 4.5)) found.push(`"${e.textContent.trim().slice(0, 20)}" ${ratio.toFixed(2)}`)
  }
  return found.slice(0, 3).join(', ')
}

const TABS = ['overview', 'doctor', 'fibers', 'timeline', 'profiles', 'heap', 'memory', 'retention', 'stops']

// ---- each view shows what was told ----
async function truth({ page, heard }) {
  await page.waitForFunction(() => document.querySelectorAll('.spark path').length > 2) // a few rounds
  await curves(page)
  await shot(page, 'overview')
  await pause(page)
  check(
    'overview_tiles',
    await until(
      async () =>
        same(await tile(page, 'fibers'), en.format(heard.get('procs').fibers.all)) ||
        same(await tile(page, 'live'), bytes(heard.get('heap').live_bytes)) ||
        same(await tile(page, 'rss'), bytes(heard.get('memory').rss_bytes)) ||
        same(await tile(page, 'procs'), heard.get('info').procs),
    ),
  )
  check(
    'overview_processors',
    await until(async () => {
      const told = heard.get('procs').procs
      const shown = await page
        .locator('.proc')
        .evaluateAll((all) => all.map((e) => [Number(e.dataset.proc), e.dataset.is, e.querySelector('.what').innerText]))
      return (
        differ(
          shown.map((s) => s.slice(0, 2)),
          told.map((p) => [p.id, p.state]),
        ) ||
        differ(
          shown.map((s) => Number((/^fiber (\d+)/.exec(s[2]) || [0, 0])[1])),
          told.map((p) => (p.fiber ? Number(p.fiber.id) : 0)),
        )
      )
    }),
  )
  check(
    'the_header_names_the_process',
    await until(async () => {
      const text = await page.locator('.process').innerText(),
        info = heard.get('info')
      return text.includes(info.program) && text.includes(`pid ${info.pid}`) ? '' : text
    }),
  )
  check(
    'charts_end_with_the_last_answer',
    await until(async () => {
      const label = await page.locator('[data-panel=rss-chart] [role=img]').getAttribute('aria-label')
      return label.endsWith(`resident ${bytes(heard.get('memory').rss_bytes)}`) ? '' : label
    }),
  )
  // and the answers are the process's, not something kept: asked for from here, at about the same time
  const direct = await (await fetch(new URL('api/procs', AT))).json()
  check(
    'the_truth_is_of_now',
    Math.abs(direct.fibers.all - heard.get('procs').fibers.all) <= Number(CLIENTS) &&
      direct.fibers.all >= Number(CLIENTS) / 2 &&
      direct.at_ms >= heard.get('procs').at_ms
      ? ''
      : `${direct.fibers.all} fibers, and ${heard.get('procs').fibers.all} shown`,
  )
  await resume(page)

  await go(page, 'fibers')
  await page.locator('[data-state]').first().waitFor()
  await pause(page)
  check(
    'fibers_by_state',
    await until(async () => {
      const told = heard.get('fibers').states
      return differ(
        await page.locator('[data-state]').evaluateAll((all) => all.map((e) => [e.dataset.state, e.lastElementChild.innerText])),
        told.map((s) => [s.state, en.format(s.n)]),
      )
    }),
  )
  check(
    'fibers_by_site',
    await until(async () => {
      const told = heard.get('fibers').sites.list.slice(0, 20)
      const shown = await page
        .locator('[data-panel=sites] tbody tr')
        .evaluateAll((all) => all.map((e) => [e.querySelector('[data-site]').dataset.site, e.children[1].innerText]))
      return differ(
        shown,
        told.map((s) => [s.site, en.format(s.n)]),
      )
    }),
  )
  check(
    'fibers_that_wait_longest',
    await until(async () => {
      const told = heard.get('fibers').waits.list.slice(0, 15)
      return differ(
        await texts(page, '[data-panel=waits] tbody td:first-child'),
        told.map((w) => String(w.id)),
      )
    }),
  )
  await resume(page)

  await go(page, 'heap')
  check(
    'heap_collects_when_asked',
    await until(async () => {
      const answer = await fetch(new URL('pprof/heap?gc=1', AT))
      await answer.arrayBuffer()
      return answer.ok ? '' : answer.status
    }),
  )
  await until(async () => (heard.get('heap')?.history.length ? '' : 'no collection yet'), 60000)
  await pause(page)
  check(
    'heap',
    await until(async () => {
      const told = heard.get('heap'),
        last = told.history[told.history.length - 1]
      return (
        same(await tile(page, 'cycles'), en.format(told.cycles)) ||
        same(await tile(page, 'goal'), bytes(told.goal_bytes)) ||
        same(await tile(page, 'marked'), bytes(told.marked_bytes)) ||
        same((await texts(page, '[data-panel=cycles] tbody td:first-child'))[0]?.replace(' forced', ''), en.format(last.cycle))
      )
    }),
  )
  check(
    'heap_by_size',
    await until(async () => {
      const told = [...heard.get('heap').sizes]
        .sort((a, b) => b.live - a.live)
        .slice(0, 8)
        .map((s) => en.format(s.live))
      return differ(await texts(page, '[data-panel=sizes] tbody td:nth-child(2)'), told)
    }),
  )
  await resume(page)

  await go(page, 'memory')
  await pause(page)
  check(
    'memory_by_part',
    await until(async () => {
      const told = heard.get('memory').parts
      const shown = await page
        .locator('[data-panel=parts] tbody tr')
        .evaluateAll((all) =>
          all.map((e) => [
            e.querySelector('[data-part]').dataset.part,
            Number(e.querySelector('[data-bytes]').dataset.bytes),
            e.lastElementChild.innerText,
          ]),
        )
      const by = (a, b) => (a[0] < b[0] ? -1 : 1)
      return (
        differ(shown.sort(by), told.map((p) => [p.id, Number(p.resident_bytes), p.falls || '–']).sort(by)) ||
        same(
          shown.reduce((n, s) => n + s[1], 0),
          heard.get('memory').sum_bytes,
        )
      )
    }),
  )
  await resume(page)

  await go(page, 'stops')
  await pause(page)
  check(
    'stops_by_reason',
    await until(async () => {
      const told = heard.get('stops').reasons
      const shown = await page
        .locator('[data-reason]')
        .evaluateAll((all) => all.map((e) => [e.dataset.reason, Number(e.querySelector('[data-count]').dataset.count)]))
      return differ(
        shown,
        told.map((r) => [r.reason, Number(r.count)]),
      )
    }),
  )
  await resume(page)

  await go(page, 'doctor')
  await pause(page)
  check(
    'findings',
    await until(async () => {
      const told = heard.get('doctor')
      return (
        differ(
          await attributes(page, '[data-finding]', 'data-finding'),
          told.findings.map((f) => f.code),
        ) ||
        differ(
          await texts(page, '.finding .what'),
          told.findings.map((f) => f.what),
        )
      )
    }),
  )
  await resume(page)
}

// ---- what is taken on the spot ----
async function flame({ page }) {
  await go(page, 'profiles')
  await page.getByRole('button', { name: '2 s' }).click()
  let size, names, program
  const take = async () => {
    const [answer] = await Promise.all([page.waitForResponse((r) => r.url().includes('/pprof/profile')), page.locator('[data-take]').click()])
    size = (await answer.body()).length
    await page.locator('.flame button').or(page.getByText('The profile is empty.')).first().waitFor()
    names = await attributes(page, '.flame button', 'aria-label')
    program = names.find((n) => /^(cmd_|resp_|client|conn|serve|handle|table_|db_)/.test(n))
    return program ? '' : names.slice(0, 12).join('; ') || 'it is empty'
  }
  check('cpu_profile_shows_the_program', await until(take)) // two seconds of a busy machine may have no sample in a function of kv's
  const note = await page.locator('[data-panel=flame] .small').first().innerText()
  check('cpu_profile_is_drawn', note.includes(`${bytes(size)} of data`) ? '' : note)
  // its keys
  await page.locator('.flame [tabindex="0"]').focus()
  await page.keyboard.press('ArrowDown')
  check(
    'flame_graph_keys_move',
    await until(async () => {
      const first = await page.evaluate(() => document.activeElement.getAttribute('aria-label'))
      return names[0] !== first && names.includes(first) ? '' : first
    }),
  )
  await page.keyboard.press('Enter')
  check(
    'flame_graph_enter_widens',
    await until(async () => {
      const [inside, box] = [await page.locator('.flame').boundingBox(), await page.locator('.flame [tabindex="0"]').boundingBox()]
      return Math.abs(inside.width - box.width) < 3 && !(await page.getByRole('button', { name: 'Whole graph' }).isDisabled())
        ? ''
        : `${box.width} of ${inside.width}`
    }),
  )
  await page.keyboard.press('Escape')
  check(
    'flame_graph_escape_shows_all',
    await until(async () => ((await page.getByRole('button', { name: 'Whole graph' }).isDisabled()) ? '' : 'it does not')),
  )
  const wanted = String(program).split(',')[0]
  const named = (all) => all.filter((n) => n.split(',')[0].includes(wanted)) // others may be found by their file
  await page.getByPlaceholder('Find a function').fill(wanted)
  check(
    'flame_graph_finds',
    await until(async () => {
      const [drawn, found] = [await attributes(page, '.flame button', 'aria-label'), await attributes(page, '.flame .found', 'aria-label')].map(named)
      return found.length ? differ(found, drawn) : 'nothing'
    }),
  )
  await page.getByPlaceholder('Find a function').fill('')
  await shot(page, 'flame')
  for (const [kind, title, value] of [
    ['heap', 'Heap in use', 'bytes in use'],
    ['allocs', 'Allocated', 'bytes allocated'],
    ['goroutine', 'Fibers', ''],
  ]) {
    await page.locator('[data-panel=take] select').selectOption(kind)
    await page.locator('[data-take]').click()
    const wrong = await until(
      async () =>
        same(await page.locator('[data-panel=flame] h2').innerText(), title) ||
        ((await page.locator('.flame button').count()) > 1 ? '' : 'it is empty') ||
        (value ? same(await page.locator('[data-panel=flame] [aria-pressed=true]').first().innerText(), value) : ''),
    )
    check(`profile_${kind}`, wrong)
  }
}

async function timeline({ page, heard }) {
  await go(page, 'timeline')
  await page.locator('[data-trace]').waitFor()
  const recorder = await until(async () => ((await page.locator('[data-flight]').count()) ? '' : 'no flight recorder'), 3000)
  await page.locator(recorder ? '[data-trace]' : '[data-flight]').click()
  await page.locator('.timeline canvas').waitFor({ timeout: 30000 })
  const label = await page.locator('.timeline canvas').getAttribute('aria-label')
  const lanes = Number(/, (\d+) lanes/.exec(label)[1])
  check('timeline_has_the_processors', lanes >= heard.get('info').procs ? '' : label)
  check('timeline_has_the_fibers', (await page.locator('[data-panel=t-fibers] tbody tr').count()) > 3 ? '' : 'too few')
  await page.locator('.timeline canvas').focus()
  await page.keyboard.press('ArrowDown')
  check(
    'timeline_keys_choose',
    await until(async () => {
      const text = await page.locator('[data-details]').innerText()
      return /fiber\s+\d+/.test(text) && /from/.test(text) ? '' : text
    }),
  )
  const all = await page.locator('.timeline canvas').evaluate((c) => c.toDataURL())
  await page.keyboard.press('+')
  check(
    'timeline_keys_zoom',
    await until(async () => ((await page.locator('.timeline canvas').evaluate((c) => c.toDataURL())) !== all ? '' : 'nothing has changed')),
  )
  await page.keyboard.press('0')
  await shot(page, 'timeline')
}

async function retention({ page, heard }) {
  await go(page, 'retention')
  await page.locator('[data-dump]').click()
  await page.locator('[data-panel=types] [data-type]').first().waitFor({ timeout: 30000 })
  await until(async () => (heard.has('dump') ? '' : 'not yet')) // the page may be quicker than we
  const dump = heard.get('dump')
  check(
    'heap_by_type',
    await until(async () => {
      const told = dump.types.list.slice(0, 12).map((t) => [t.type, en.format(t.objects)])
      return differ(
        await page
          .locator('[data-panel=types] tbody tr')
          .evaluateAll((all) => all.map((e) => [e.querySelector('[data-type]').dataset.type, e.children[1].innerText])),
        told,
      )
    }),
  )
  check('heap_objects', same(await tile(page, 'd-bytes'), bytes(dump.heap.bytes)))
  const largest = [...dump.retained.list]
    .filter((x) => !dump.retained.list.some((y) => y.address === x.inside))
    .sort((a, b) => b.retained_bytes - a.retained_bytes)[0]
  check('what_keeps_most', same((await attributes(page, '[data-kept]', 'data-kept'))[0], largest.address))
  await page
    .getByRole('button', { name: /^Why is 0x/ })
    .first()
    .click()
  check(
    'why_alive',
    await until(async () => {
      const steps = await texts(page, '[data-path] li'),
        told = heard.get('why')
      return told.path &&
        same(steps.length, told.path.length + 1) === '' &&
        steps[0].includes(told.root.kind) &&
        steps[steps.length - 1].includes(told.path[told.path.length - 1].address)
        ? ''
        : steps.join('; ')
    }),
  )
  await page.evaluate(() => scrollTo(0, 0))
  await shot(page, 'retention')
}

// ---- the keyboard, and what the page does by itself ----
async function keyboard({ page }) {
  await page.goto(AT)
  await page.locator('.status[data-is=live]').waitFor()
  await page.keyboard.press('Tab')
  const focus = () => page.evaluate(() => document.activeElement.id || document.activeElement.className)
  check('first_is_the_skip_link', same(await focus(), 'skip'))
  check('the_skip_link_is_seen', (await page.locator('.skip').evaluate((e) => getComputedStyle(e).clipPath)) === 'none' ? '' : 'it is clipped')
  await page.keyboard.press('Enter')
  check('it_leads_to_the_view', same(await focus(), 'view'))
  await page.locator('#tab-overview').focus()
  await page.keyboard.press('ArrowDown')
  await page.locator('#tab-doctor[aria-selected=true]').waitFor() // drawn a moment later
  check('arrows_change_the_view', same(await focus(), 'tab-doctor') || same(await page.locator('#tab-doctor').getAttribute('aria-selected'), 'true'))
  await page.keyboard.press('End')
  await page.locator('#tab-stops[aria-selected=true]').waitFor()
  check('end_goes_to_the_last_view', same(await focus(), 'tab-stops') || same(new URL(page.url()).hash, '#stops'))
  check('the_focus_is_seen', (await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle)) !== 'none' ? '' : 'no outline')
  await page.keyboard.press('Home')
  await page.locator('.hint').first().focus()
  check('explanations_by_keyboard', await until(async () => ((await page.locator('[role=tooltip]').count()) === 1 ? '' : 'none')))
  await page.keyboard.press('Escape')
  check('escape_hides_them', await until(async () => ((await page.locator('[role=tooltip]').count()) === 0 ? '' : 'it stays')))
  // everything that can be reached has a name
  for (const tab of TABS) {
    await go(page, tab)
    const nameless = await page.evaluate(() =>
      [...document.querySelectorAll('button, a, input, select, [role=img], [role=region], [tabindex="0"]')]
        .filter((e) => !(e.getAttribute('aria-label') || e.getAttribute('aria-labelledby') || e.innerText?.trim() || e.labels?.length))
        .map((e) => e.outerHTML.slice(0, 80)),
    )
    if (nameless.length) check(`names_${tab}`, nameless[0])
  }
}

async function itself({ page, asked }) {
  await page.goto(AT)
  await page.locator('.status[data-is=live]').waitFor()
  // no jumps once it has been told everything
  await page.waitForFunction(() => document.querySelectorAll('.spark path').length > 2)
  await page.evaluate(() => (window.shifts.length = 0))
  const rounds = asked()
  await until(async () => (asked() >= rounds + 12 ? '' : 'it does not ask'))
  const jumps = await page.evaluate(() => window.shifts.reduce((sum, s) => sum + s.value, 0))
  check('nothing_jumps_at_an_answer', jumps < 0.005 ? '' : jumps)
  // nobody looks
  const hide = (is) =>
    page.evaluate((h) => {
      Object.defineProperty(document, 'hidden', { value: h, configurable: true })
      document.dispatchEvent(new Event('visibilitychange'))
    }, is)
  await hide(true)
  await page.locator('.status[data-is=hidden]').waitFor()
  const before = asked()
  await page.waitForTimeout(3000) // longer than a round
  check('it_does_not_ask_while_hidden', same(asked(), before))
  await hide(false)
  check('it_asks_again_when_seen', await until(async () => (asked() > before ? '' : 'it does not')))
  // no answer
  page.ignoring = true
  await page.route('**/debug/api/**', (route) => route.abort())
  await page.locator('.status[data-is=silent]').waitFor()
  check('it_says_so_when_there_is_no_answer', (await page.getByRole('alert').innerText()).includes('does not answer') ? '' : 'it does not')
  await shot(page, 'no-answer')
  await page.unroute('**/debug/api/**')
  await page.locator('.status[data-is=live]').waitFor()
  check('it_goes_on_when_there_is_one_again', (await page.getByRole('alert').count()) === 0 ? '' : 'the alert stays')
  await page.emulateMedia({ reducedMotion: 'reduce' })
  check('nothing_moves_where_that_is_not_wanted', same(await page.locator('.dot').evaluate((e) => getComputedStyle(e).animationName), 'none'))
}

async function looks(browser, scheme) {
  const { page, context, trouble } = await open(browser, { colorScheme: scheme })
  await page.waitForFunction(() => document.querySelectorAll('.spark path').length > 2)
  for (const tab of TABS) {
    await go(page, tab)
    const found = await until(async () => page.evaluate(pale), 1000)
    check(`contrast_${scheme}_${tab}`, found)
  }
  if (scheme === 'dark') {
    const ground = await page.evaluate(() => getComputedStyle(document.body).backgroundColor)
    check('dark_is_dark', Math.max(...ground.match(/\d+/g).map(Number)) < 40 ? '' : ground)
    await go(page, 'overview')
    await curves(page)
    await shot(page, 'dark')
    await go(page, 'memory')
    await shot(page, 'memory-dark')
  }
  check(`no_trouble_${scheme}`, trouble.join('; '))
  await context.close()
}

async function phone(browser) {
  const { page, context } = await open(browser, { viewport: { width: 360, height: 740 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true })
  for (const tab of TABS) {
    await go(page, tab)
    const sideways = () => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)
    await page.waitForFunction(() => !document.querySelector('.wait')) // told what it shows
    const over = await sideways()
    check(`phone_${tab}_does_not_scroll_sideways`, over > 0 ? `by ${over} px` : '')
    if (tab === 'overview') await curves(page)
    if (tab === 'overview' || tab === 'memory') await shot(page, `phone-${tab}`)
  }
  await context.close()
}

async function token(browser) {
  const answer = await fetch(new URL(TOKEN_AT))
  check(
    'without_the_token_nothing',
    same(answer.status, 401) || ((answer.headers.get('www-authenticate') || '').startsWith('Basic') ? '' : 'no prompt'),
  )
  const { page, context, trouble, heard } = await open(browser, { httpCredentials: { username: 'me', password: TOKEN } }, TOKEN_AT)
  check('with_the_token_all', (await page.locator('.process').innerText()).includes('pid') ? trouble.join('; ') : 'it does not show the process')
  // what the doctor has found there: text, whatever is in it
  await go(page, 'doctor')
  check(
    'findings_are_shown_as_they_are',
    await until(async () => {
      const told = heard.get('doctor').findings
      return (
        differ(
          await texts(page, '.finding .what'),
          told.map((f) => f.what),
        ) ||
        (told[0].what.includes('<b>of</b>') ? '' : told[0].what) ||
        differ(await attributes(page, '[data-finding]', 'data-finding'), ['W14']) ||
        same(await page.locator('#tab-doctor .badge').innerText(), 1) ||
        same(await page.locator('[data-seen=W14]').innerText(), 1)
      )
    }),
  )
  await shot(page, 'doctor')
  // the password that the browser has is no longer right
  page.ignoring = true
  await page.route('**/debug/api/**', (route) => route.fulfill({ status: 401, body: 'who are you?' }))
  await page.locator('.status[data-is=denied]').waitFor()
  check('it_says_so_when_it_is_refused', (await page.getByRole('alert').innerText()).includes('token') ? '' : 'it does not')
  await context.close()
}

async function views(browser) {
  const view = await open(browser, {})
  for (const part of [truth, flame, timeline, retention]) await part(view).catch((error) => check(part.name, String(error)))
  check('nothing_is_refused_by_the_policy', (await view.page.evaluate(() => window.violations)).join('; '))
  check('no_trouble', view.trouble.join('; '))
  await view.context.close()
}

async function behaviour(browser) {
  const view = await open(browser, {})
  await keyboard(view)
  await itself(view)
  await view.context.close()
}

// Several people at a time.
async function all() {
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox'] })
  const parts = [views, behaviour, (b) => looks(b, 'light'), (b) => looks(b, 'dark'), phone, token]
  const wrong = (error) => check('page_browser', String(error.stack))
  if (SHOTS)
    for (const part of parts) await part(browser).catch(wrong) // pictures of a process that one looks at
  else await Promise.all(parts.map((part) => part(browser).catch(wrong)))
  await browser.close()
  process.exit(bad)
}
all()
