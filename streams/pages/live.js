// The live page: one stream of snapshots in, the same few tables out. No library, no outside request.
//
// A snapshot: {currency, decimals, models: [name], writeKey, pot: {amount, count},
//   pipeline: [{stage, count, amount}], revenue: {model: [{channel, count, amount}]}, newest: [touch],
//   forecast: [month], quarter, warmth: {counts, warmest, cooling}, alerts: [alert]}   see streams/snapshot.py
// Amounts are minor units; counts of credits are millionths; a touch's `at` is in microseconds.
// When the totals cannot be read, a snapshot holds `trouble` instead.

const SILENCE_MS = 45_000; // the server says something at least every 15 s
const RETRY_MS = 3_000;
const DEFAULT_MODELS = ["first_touch", "linear"];

const $ = (id) => document.getElementById(id);
const page = { source: null, snapshot: null, models: chosenModels(), heard: 0, seen: null };

function chosenModels() {
  const names = (new URLSearchParams(location.search).get("models") ?? "").split(",").filter(Boolean);
  return names.length === 2 ? names : [...DEFAULT_MODELS];
}

// ---- the stream

function connect() {
  page.source?.close();
  const source = new EventSource(`/api/v1/live?models=${page.models.map(encodeURIComponent).join(",")}`);
  page.source = source;
  source.onopen = heard;
  source.addEventListener("alive", heard);
  source.onmessage = (event) => {
    heard();
    receive(JSON.parse(event.data));
  };
  source.onerror = () => {
    if (page.source !== source) return;
    lost();
    if (source.readyState !== EventSource.CLOSED) return; // else the browser tries again by itself
    if (!page.heard) page.models = [...DEFAULT_MODELS]; // the address names a model that does not exist
    setTimeout(() => page.source === source && connect(), RETRY_MS);
  };
}

function heard() {
  page.heard = Date.now();
}

function lost() {
  show("lost", "Connection lost, trying again…");
  $("main").toggleAttribute("data-stale", true);
}

function receive(snapshot) {
  if (snapshot.trouble) {
    show("trouble", `Not up to date: ${snapshot.trouble}`);
    $("main").toggleAttribute("data-stale", true);
    return;
  }
  show("live", "Live");
  $("main").removeAttribute("data-stale");
  $("main").setAttribute("aria-busy", "false");
  page.snapshot = snapshot;
  render(snapshot);
}

function show(state, text) {
  $("status").dataset.state = state;
  if ($("status-text").textContent !== text) $("status-text").textContent = text;
}

// ---- words and numbers

const money = (currency, decimals) => {
  const format = new Intl.NumberFormat(undefined, { style: "currency", currency, minimumFractionDigits: decimals, maximumFractionDigits: decimals });
  return { currency, decimals, text: (minor) => format.format(minor / 10 ** decimals), parts: (minor) => format.formatToParts(minor / 10 ** decimals) };
};
const number = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });
const percent = new Intl.NumberFormat(undefined, { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
const ago = new Intl.RelativeTimeFormat(undefined, { numeric: "auto", style: "short" });
const words = (id) => (id === null || id === undefined || id === "" ? "(none)" : capital(String(id).replaceAll("_", " ")));
const capital = (text) => (text.charAt(0).toUpperCase() + text.slice(1)).replace(/^Ai\b/, "AI");
const deals = (count) => `${number.format(count)} ${count === 1 ? "deal" : "deals"}`;

function since(milliseconds) {
  const seconds = (milliseconds - Date.now()) / 1000;
  for (const [unit, size] of [["day", 86_400], ["hour", 3_600], ["minute", 60]]) {
    if (Math.abs(seconds) >= size) return ago.format(Math.trunc(seconds / size), unit);
  }
  return Math.abs(seconds) < 5 ? "now" : ago.format(Math.trunc(seconds), "second");
}

// ---- the parts of the page

function render(snapshot) {
  const cash = money(snapshot.currency, snapshot.decimals);
  renderFigures(snapshot, cash);
  renderChoice(snapshot.models);
  renderRevenue(snapshot.revenue, cash);
  renderStages(snapshot.pipeline, cash);
  renderForecast(snapshot, cash);
  renderTimes(snapshot);
  renderStart(snapshot);
}

// What says how long ago something was, and so changes by itself.
function renderTimes({ warmth, alerts, newest }) {
  renderWarmth(warmth);
  renderAlerts(alerts);
  renderTouches(newest);
}

function renderFigures({ pot, pipeline, revenue }, cash) {
  sum($("pot"), cash.parts(pot.amount));
  $("pot-note").textContent = `${deals(pot.count / 1e6)} won, refunds taken off`;
  sum($("open"), cash.parts(total(pipeline, "amount")));
  $("open-note").textContent = `${deals(total(pipeline, "count"))} open`;
  const nobodys = total((Object.values(revenue)[0] ?? []).filter((row) => row.channel === "unattributed"), "amount");
  $("share").textContent = pot.amount > 0 ? percent.format((pot.amount - nobodys) / pot.amount) : "–";
}

const total = (rows, name) => rows.reduce((all, row) => all + row[name], 0);

function sum(element, parts) {
  element.replaceChildren(
    ...parts.map(({ type, value }) => {
      const part = make("span", type === "decimal" || type === "fraction" ? "cents" : "");
      part.textContent = value;
      return part;
    }),
  );
}

function renderChoice(models) {
  ["a", "b"].forEach((side, index) => {
    const select = $(`model-${side}`);
    if (select.options.length !== models.length) select.replaceChildren(...models.map((name) => new Option(words(name), name)));
    select.value = page.models[index];
    $(`head-${side}`).textContent = words(page.models[index]);
  });
}

function renderRevenue(revenue, cash) {
  const [first, second] = page.models.map((model) => new Map((revenue[model] ?? []).map((row) => [row.channel, row.amount])));
  const rows = [...new Set([...first.keys(), ...second.keys()])].map((channel) => ({ channel, a: first.get(channel) ?? 0, b: second.get(channel) ?? 0 }));
  rows.sort((x, y) => Math.max(y.a, y.b) - Math.max(x.a, x.b));
  const most = Math.max(1, ...rows.flatMap(({ a, b }) => [Math.abs(a), Math.abs(b)]));
  keyed($("channels"), rows, ({ channel }) => String(channel), channelRow, (row, { channel, a, b }) => {
    row.querySelector("th").textContent = words(channel);
    setBar(row, "a", a, most, cash);
    setBar(row, "b", b, most, cash);
    row.querySelector(".gap").textContent = a === b ? "=" : a === 0 ? "new" : signed((b - a) / Math.abs(a));
    row.querySelector(".gap").title = `${words(page.models[1])} against ${words(page.models[0])}: ${cash.text(b - a)}`;
  });
  $("channels-none").hidden = rows.length > 0;
}

const signed = (share) => (share >= 10 ? "> 10 ×" : `${share > 0 ? "+" : "−"}${percent.format(Math.abs(share))}`);

function channelRow() {
  const row = make("tr");
  const name = make("th");
  name.scope = "row";
  const gap = make("td", "gap");
  row.append(name, barCell("a"), barCell("b"), gap);
  return row;
}

function barCell(side) {
  const cell = make("td", `pair ${side}`);
  const bar = make("span", `bar ${side}`);
  bar.setAttribute("aria-hidden", "true");
  bar.append(make("span"));
  cell.append(bar, make("span", "value"));
  return cell;
}

function setBar(row, side, amount, most, cash) {
  const fill = row.querySelector(`.bar.${side} > span`);
  fill.style.width = `${(100 * Math.abs(amount)) / most}%`;
  fill.classList.toggle("minus", amount < 0);
  row.querySelector(`.pair.${side} .value`).textContent = cash.text(amount);
}

function renderStages(pipeline, cash) {
  const most = Math.max(1, ...pipeline.map(({ amount }) => amount));
  keyed($("stages"), pipeline, ({ stage }) => String(stage), stageRow, (row, { stage, count, amount }) => {
    row.querySelector(".name").textContent = words(stage);
    row.querySelector(".amount").textContent = cash.text(amount);
    row.querySelector(".deals").textContent = ` · ${deals(count)}`;
    row.querySelector(".bar > span").style.width = `${(100 * amount) / most}%`;
  });
  $("stages-none").hidden = pipeline.length > 0;
}

function stageRow() {
  const row = make("tr");
  const head = make("th");
  head.scope = "row";
  const cell = make("td");
  const bar = make("span", "bar a");
  bar.setAttribute("aria-hidden", "true");
  bar.append(make("span"));
  cell.append(bar);
  const value = make("span", "value");
  value.append(make("span", "amount"), make("span", "deals"));
  head.append(make("span", "name"), value);
  row.append(head, cell);
  return row;
}

// Each month: what is won, the pipeline and new business end to end, and the range as a line across them.
function renderForecast({ forecast, quarter, pot, pipeline }, cash) {
  const known = quarter && (pot.count > 0 || pipeline.length > 0);
  if (known) sum($("quarter"), cash.parts(quarter.p50));
  $("quarter-title").textContent = known ? `Forecast ${quarter.period}` : "This quarter";
  $("quarter-note").textContent = known ? `${compact(quarter.p10, cash)} – ${compact(quarter.p90, cash)}, eight times in ten` : "forecast";
  const months = known ? forecast : [];
  const most = Math.max(1, ...months.flatMap(({ total: all, p90 }) => [all, p90]));
  const share = (amount) => `${(100 * Math.max(0, amount)) / most}%`;
  keyed($("months"), months, ({ period }) => period, monthRow, (row, month) => {
    row.cells[0].textContent = monthName(month.period);
    for (const part of ["pot", "pipeline", "new_business"]) row.querySelector(`.${part}`).style.width = share(month[part]);
    const range = row.querySelector(".range");
    range.style.left = share(month.p10);
    range.style.width = `${(100 * (month.p90 - month.p10)) / most}%`;
    range.title = `P10 ${cash.text(month.p10)}, P50 ${cash.text(month.p50)}, P90 ${cash.text(month.p90)}`;
    two(row.cells[2], compact(month.p50, cash), `${compact(month.p10, cash)} – ${compact(month.p90, cash)}`);
  });
  $("months-none").hidden = months.length > 0;
}

const compact = (minor, { currency, decimals }) =>
  new Intl.NumberFormat(undefined, { style: "currency", currency, notation: "compact", maximumFractionDigits: 1 }).format(minor / 10 ** decimals);
const monthName = (period) => new Date(`${period}-15T00:00:00Z`).toLocaleDateString(undefined, { month: "short", year: "numeric", timeZone: "UTC" });

function monthRow() {
  const row = make("tr");
  const name = make("th");
  name.scope = "row";
  const cell = make("td", "parts");
  const bar = make("span", "stack");
  bar.setAttribute("aria-hidden", "true");
  bar.append(make("span", "pot"), make("span", "pipeline"), make("span", "new_business"), make("span", "range"));
  cell.append(bar);
  row.append(name, cell, make("td", "value"));
  return row;
}

function renderWarmth({ counts, warmest, cooling }) {
  $("warmth-counts").textContent = ["warm", "warming", "cooling", "cold"].map((state) => `${number.format(counts[state] ?? 0)} ${state}`).join(" · ");
  keyed($("warmest"), warmest, ({ account }) => account, () => cells(4), (row, each) => {
    named(row.cells[0], each.account, each.name, "");
    row.cells[1].textContent = number.format(each.score);
    row.cells[1].className = "short";
    chip(row.cells[2], each.state, each.rewarmed ? `${each.state} again` : each.state);
    if (each.cause) two(row.cells[3], words(each.cause.kind), each.cause.campaign ?? words(each.cause.channel));
    else row.cells[3].textContent = "–";
  });
  $("warmest-none").hidden = warmest.length > 0;
  keyed($("cooling"), cooling, ({ account }) => account, () => cells(3), (row, each) => {
    named(row.cells[0], each.account, each.name, each.next_at ? `${each.next_state} ${since(Date.parse(each.next_at))}` : "");
    row.cells[1].textContent = number.format(each.score);
    row.cells[1].className = "short";
    row.cells[2].textContent = each.since ? since(Date.parse(each.since)) : "–";
    row.cells[2].className = "short";
  });
  $("cooling-none").hidden = cooling.length > 0;
}

function renderAlerts(alerts) {
  const before = page.alerted;
  page.alerted = new Set(alerts.map(({ alertId }) => alertId));
  keyed($("alerts"), alerts, ({ alertId }) => alertId, () => make("li"), (item, alert) => {
    const state = make("span", `chip ${alert.to}`);
    state.textContent = alert.rewarmed ? `${alert.transition} again` : alert.transition;
    const who = make("strong");
    who.textContent = alert.account.name ?? alert.account.id;
    const when = make("time", "minor");
    when.dateTime = alert.at;
    when.textContent = since(Date.parse(alert.at));
    const why = make("span", "minor why");
    why.textContent = reason(alert);
    item.replaceChildren(state, who, when, why);
    item.classList.toggle("fresh", before !== undefined && !before.has(alert.alertId));
  });
  $("alerts-none").hidden = alerts.length > 0;
}

// In words: what lifted the score most, or what came last before it fell.
function reason({ causes, lastTouches, cooled }) {
  const touch = causes[0] ?? lastTouches?.[0];
  if (!touch) return "";
  const through = [touch.campaign ?? (touch.channel && words(touch.channel)), touch.person].filter(Boolean).join(", ");
  const again = cooled ? `; had ${cooled.lastTouches?.[0] ? `cooled after ${words(cooled.lastTouches[0].kind).toLowerCase()}` : "cooled"}` : "";
  return `${words(touch.kind)}${through ? ` (${through})` : ""}${again}`;
}

function cells(count) {
  const row = make("tr");
  row.append(...Array.from({ length: count }, () => make("td")));
  return row;
}

function chip(cell, name, text) {
  const span = make("span", `chip ${name}`);
  span.textContent = text;
  cell.replaceChildren(span);
}

function renderTouches(newest) {
  const keyOf = (touch) => `${touch.at} ${touch.account} ${touch.person} ${touch.kind}`;
  const before = page.seen;
  page.seen = new Set(newest.map(keyOf));
  keyed($("touches"), newest, keyOf, touchRow, (row, touch) => {
    const [when, kind, channel, source, who] = row.cells;
    const at = new Date(touch.at / 1000);
    when.firstChild.dateTime = at.toISOString();
    when.firstChild.title = at.toLocaleString();
    when.firstChild.textContent = since(at.getTime());
    kind.textContent = words(touch.kind);
    channel.firstChild.textContent = words(touch.channel);
    two(source, touch.source || "–", touch.campaign);
    named(who, touch.account, touch.account_name, touch.person === touch.account ? "" : touch.person);
    row.classList.toggle("fresh", before !== null && !before.has(keyOf(touch)));
  });
  $("touches-none").hidden = newest.length > 0;
}

function touchRow() {
  const row = make("tr");
  row.append(make("td"), make("td"), make("td"), make("td"), make("td"));
  row.cells[0].append(make("time"));
  row.cells[2].append(make("span", "chip"));
  return row;
}

// An account by its name, where it has one; its id is what reports are asked with.
function named(cell, account, name, minor) {
  two(cell, name || account || "–", minor);
  cell.title = name ? account : "";
}

function two(cell, main, minor) {
  cell.textContent = main;
  if (!minor) return;
  const below = make("span", "minor");
  below.textContent = minor;
  cell.append(below);
}

function renderStart({ pot, pipeline, newest, writeKey }) {
  $("start").hidden = newest.length > 0 || pipeline.length > 0 || pot.count !== 0 || pot.amount !== 0;
  if ($("start").hidden || $("start-command").textContent) return;
  const batch = {
    batch: [
      { type: "page", anonymousId: "visitor-1", properties: { url: "https://www.example.com/?utm_source=newsletter&utm_medium=email" } },
      { type: "identify", anonymousId: "visitor-1", userId: "ann@acme.com" },
    ],
  };
  $("start-command").textContent = `curl -u ${writeKey}: ${location.origin}/v1/batch -d '${JSON.stringify(batch, null, 1).replaceAll(/\n\s*/g, " ").replaceAll("{ \"type\"", "\n  { \"type\"")}'`;
  $("start-host").textContent = location.origin;
  $("start-key").textContent = writeKey;
}

// ---- elements

function make(tag, name = "") {
  const element = document.createElement(tag);
  if (name) element.className = name;
  return element;
}

// Keep the row of every key, so that bars move instead of jumping.
function keyed(body, items, keyOf, create, update) {
  const rows = new Map([...body.children].map((row) => [row.dataset.key, row]));
  const wanted = items.map((item) => {
    const key = keyOf(item);
    const row = rows.get(key) ?? create();
    row.dataset.key = key;
    update(row, item);
    return row;
  });
  if (wanted.length !== body.children.length || wanted.some((row, index) => row !== body.children[index])) body.replaceChildren(...wanted);
}

// ---- what the reader does, and time

["a", "b"].forEach((side, index) =>
  $(`model-${side}`).addEventListener("change", ({ target }) => {
    page.models[index] = target.value;
    history.replaceState(null, "", `?models=${page.models.join(",")}`);
    connect();
  }),
);
setInterval(() => {
  if (page.snapshot) renderTimes(page.snapshot);
  if (page.heard && Date.now() - page.heard > SILENCE_MS) {
    lost();
    connect();
  }
}, 10_000);
addEventListener("online", connect);
connect();
