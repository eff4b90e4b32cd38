// The page of the explorer. Plain elements, so that a keyboard and a screen reader can use all of it;
// what they say comes from page.py, as JSON in the properties facts, shown, asked and decoded.

const SHAPES = [
  '<circle r="4.6"/>', '<rect x="-4" y="-4" width="8" height="8"/>',
  '<path d="M0 -5.4 5 3.8H-5Z"/>', '<path d="M0 -5.6 5.2 0 0 5.6 -5.2 0Z"/>',
]

// Columns of words, which are aligned to the left.
const TEXT = ["label", "verdict"]

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag)
  for (const [name, value] of Object.entries(properties)) {
    if (name in element && name !== "list") element[name] = value
    else element.setAttribute(name, value)
  }
  element.append(...children)
  return element
}

function table(columns, lines, line_of) {
  const head = make("tr")
  columns.forEach(name => head.append(make("th", {scope: "col", textContent: name,
    className: TEXT.includes(name) ? "text" : ""})))
  return make("table", {}, make("thead", {}, head), make("tbody", {}, ...lines.map(line_of)))
}

// Of a table with many features those are listed that differ most.
function features(facts, name, columns, found, line_of) {
  const listed = make("div", {className: "wide", tabIndex: 0, role: "group", ariaLabel: name},
    table(["feature", ...columns], found, line_of))
  if (found.length < facts.features)
    listed.append(make("p", {className: "soft",
      textContent: `${found.length} of ${facts.features} features, those that differ most.`}))
  return listed
}

function image(src, alt, caption) {
  const figure = make("figure", {}, make("img", {src, alt}))
  if (caption) figure.append(make("figcaption", {textContent: caption}))
  return figure
}

export function render({model}) {
  const facts = JSON.parse(model.facts)
  const dark = window.matchMedia("(prefers-color-scheme: dark)")
  const color_of = item => dark.matches ? item.dark : item.light
  const section = (name, title, ...children) => make("section", {className: name},
    make("h2", {textContent: title}), ...children)

  // The map.
  const by = make("select", {id: "by"})
  for (const [key, legend] of Object.entries(facts.legends))
    by.append(make("option", {value: key, textContent: legend.name}))
  by.value = model.color
  const legend = make("ul", {className: "legend"})
  const zooms = [["Zoom in", 0.6], ["Zoom out", 1 / 0.6], ["Show all", 0]].map(([text, zoom]) =>
    make("button", {type: "button", textContent: text, onclick: () => model.send_msg({zoom})}))
  const map = section("map", "The latent map",
    make("div", {className: "controls"}, make("label", {htmlFor: "by", textContent: "Color by"}),
      by, ...zooms),
    legend, make("div", {role: "img", ariaLabel: facts.map}, model.get_child("map")),
    make("p", {className: "soft", textContent: "Each point is a row, at the mean of what the " +
      "encoder says of its latents. Click near one to look at it, or give its number. The ring is " +
      "that row, the small dots are draws of its latents, and the cross is where the sliders are."}))

  // The row.
  const number = make("input", {type: "number", id: "row", min: 0, max: facts.rows - 1})
  const step = (text, by) => make("button", {type: "button", textContent: text,
    onclick: () => { model.row = Math.min(facts.rows - 1, Math.max(0, model.row + by)) }})
  const about = make("div", {className: "about"})
  const spoken = make("p", {className: "soft", role: "status"})
  const row = section("row", "A row",
    make("div", {className: "controls"}, make("label", {htmlFor: "row",
      textContent: `Row, 0 to ${facts.rows - 1}`}), number, step("Previous", -1), step("Next", 1)),
    about)

  // The sliders.
  const sliders = new Map()
  const rack = make("div", {className: "sliders rack"})
  for (const {latent, low, high} of facts.latents) {
    // Steps would round the latents that are not moved.
    const input = make("input", {type: "range", id: `z${latent}`, min: low, max: high, step: "any"})
    const output = make("output", {htmlFor: `z${latent}`})
    input.addEventListener("input", () => { output.textContent = (+input.value).toFixed(2); ask() })
    sliders.set(String(latent), {input, output})
    rack.append(make("label", {htmlFor: `z${latent}`, textContent: `latent ${latent}`}), input, output)
  }
  const back = make("button", {type: "button", onclick: () => place(JSON.parse(model.shown).posterior)})
  const decoded = make("div", {className: "decoded"})
  const resting = facts.resting
    ? ` ${facts.resting} other latents, which are used less or not at all, stay where they are.` : ""
  const move = section("move", "Move through the latents",
    make("p", {className: "soft", textContent: "What the decoder makes of the latents that the " +
      "sliders are at." + resting}), make("div", {className: "controls"}, back), decoded, spoken, rack)

  // The worst rows.
  const columns = ["row", ...(facts.labeled ? ["label"] : []), "verdict", "k-hat", "KL, nats", "log p(x)"]
  const lines = new Map()
  const worst = section("worst", "The worst rows",
    make("p", {className: "soft", textContent: facts.diagnosed
      ? "Those that can be believed least, by the run's diagnosis."
      : "Judged by their own draws alone: ppl-vae diagnose refines rows and looks for modes that " +
        "the encoder misses."}),
    make("div", {className: "wide", tabIndex: 0, role: "group", ariaLabel: "The worst rows"},
      table(columns, facts.worst, line => {
        const go = make("button", {type: "button", textContent: line.row,
          ariaLabel: `Look at row ${line.row}`, onclick: () => { model.row = line.row }})
        const cells = [go, ...(facts.labeled ? [line.label] : []), line.verdict, line.khat, line.kl,
          line.evidence].map((value, i) => make("td", {className:
          TEXT.includes(columns[i]) ? "text" : ""}, value))
        const made = make("tr", {}, ...cells)
        lines.set(line.row, made)
        return made
      })))

  const page = make("div", {className: "explorer"},
    make("header", {}, make("h1", {textContent: facts.title}), make("p", {className: "soft",
      textContent: `${facts.source}: ${facts.rows} test rows`})),
    make("main", {className: "grid"}, map, row, move, worst))

  // What is asked of Python, one place at a time, the latest last.
  let asked = 0, waiting = false, again = false
  function ask() {
    if (waiting) { again = true; return }
    waiting = true
    const z = {}
    sliders.forEach(({input}, latent) => { z[latent] = +input.value })
    model.asked = JSON.stringify({z, number: ++asked})
  }
  function place(posterior) {
    posterior.forEach(({latent, start}) => set(latent, start))
    ask()
  }
  function set(latent, value) {
    const {input, output} = sliders.get(String(latent))
    input.value = value
    output.textContent = (+value).toFixed(2)
  }

  function paint() {
    const chosen = facts.legends[model.color]
    legend.replaceChildren(...chosen.items.map(item => {
      const entry = make("li")
      entry.innerHTML = `<svg viewBox="-6 -6 12 12" aria-hidden="true" fill="${color_of(item)}">` +
        SHAPES[item.marker] + "</svg>"
      entry.append(item.words)
      return entry
    }))
    by.value = model.color
  }

  function chart(posterior) {
    // Two intervals of each latent, two standard deviations to each side.
    const all = posterior.flatMap(p => [p.mean - 2 * p.sd, p.mean + 2 * p.sd,
      p.weighted_mean - 2 * p.weighted_sd, p.weighted_mean + 2 * p.weighted_sd])
    const low = Math.min(...all), high = Math.max(...all)
    const at = value => 70 + 320 * (value - low) / (high - low || 1)
    const parts = posterior.map(({latent, mean, sd, weighted_mean, weighted_sd}, i) => {
      const y = 22 + 26 * i
      const bar = (m, s, dy, color, width) => `<path d="M${at(m - 2 * s)} ${y + dy}H${at(m + 2 * s)}" ` +
        `stroke="${color}" stroke-width="${width}"/><circle cx="${at(m)}" cy="${y + dy}" r="4" fill="${color}"/>`
      return `<text x="0" y="${y + 4}">latent ${latent}</text>` +
        bar(mean, sd, -4, "var(--ink)", 2) + bar(weighted_mean, weighted_sd, 5, "var(--mark)", 3)
    })
    const height = 30 + 26 * posterior.length
    const holder = make("div")
    holder.innerHTML = `<svg class="chart" viewBox="0 0 400 ${height + 16}" role="img" aria-label="` +
      `Intervals of two standard deviations of each latent; their numbers are in the table below">` +
      parts.join("") + `<text x="70" y="${height + 8}">${low.toFixed(1)}</text>` +
      `<text x="390" y="${height + 8}" text-anchor="end">${high.toFixed(1)}</text></svg>`
    return holder
  }

  function show() {
    const shown = JSON.parse(model.shown)
    number.value = shown.row
    row.querySelector("h2").textContent = `Row ${shown.row}` + (facts.labeled ? `, label ${shown.label}` : "")
    const item = facts.legends.verdict.items.find(entry => entry.words === shown.verdict)
    const verdict = make("div", {className: "verdict"},
      make("p", {}, make("strong", {textContent: `Verdict: ${shown.verdict}`})),
      ...shown.words.map(text => make("p", {textContent: text})))
    verdict.style.setProperty("--sign", color_of(item))
    const seen = facts.images
      ? make("div", {className: "images"},
          image(shown.original, `Row ${shown.row} as it is`, "the row"),
          image(shown.reconstruction, `Row ${shown.row} reconstructed`, "its reconstruction"),
          image(shown.spread, `Where the reconstruction of row ${shown.row} is unsure: bright`,
            `its spread, up to ${shown.widest}`))
      : features(facts, "Features", ["row", "reconstruction", "spread"], shown.table, line =>
          make("tr", {}, make("th", {scope: "row", textContent: line.name}), make("td", {}, line.row),
            make("td", {}, line.reconstruction), make("td", {}, line.spread)))
    const numbers = make("details", {}, make("summary", {textContent: "The same in numbers"}),
      make("div", {className: "wide", tabIndex: 0, role: "group", ariaLabel: "Posterior"},
        table(["latent", "mean", "sd", "weighted mean", "weighted sd"], shown.posterior, p =>
          make("tr", {}, make("th", {scope: "row", textContent: p.latent}),
            ...[p.mean, p.sd, p.weighted_mean, p.weighted_sd].map(v => make("td", {}, v.toFixed(2)))))))
    const near = make("ul", {className: "near"}, ...shown.neighbors.map(other => {
      const go = make("button", {type: "button", onclick: () => { model.row = other.row }})
      if (facts.images) go.append(make("img", {src: other.image, alt: ""}))
      go.append(make("span", {textContent: `Row ${other.row}`}),
        make("span", {className: "soft", textContent:
          (facts.labeled ? `label ${other.label}, ` : "") + other.verdict}))
      return make("li", {}, go)
    }))
    about.replaceChildren(verdict, seen, make("h3", {textContent: "Its posterior"}),
      make("p", {className: "soft", textContent: `Above, ${shown.draws} draws from the encoder. Below, ` +
        `in blue, the same under their weights: they are worth ${shown.effective}.`}), chart(shown.posterior), numbers,
      make("h3", {textContent: "Its neighbors among the latents"}), near)
    back.textContent = `Back to row ${shown.row}`
    lines.forEach((line, of_row) => line.classList.toggle("here", of_row === shown.row))
    shown.posterior.forEach(({latent, start}) => set(latent, start))
  }

  function answer() {
    if (!model.decoded) return
    const found = JSON.parse(model.decoded)
    decoded.replaceChildren(facts.images
      ? image(found.image, found.said, "decoded")
      : features(facts, "Decoded", ["decoded", "at the row"], found.table, line => make("tr",
          {className: line.decoded === line["at the row"] ? "" : "here"},
          make("th", {scope: "row", textContent: line.name}), make("td", {}, line.decoded),
          make("td", {}, line["at the row"]))))
    spoken.textContent = found.said
    if (found.number === asked) waiting = false
    if (again && !waiting) { again = false; ask() }
  }

  by.addEventListener("change", () => { model.color = by.value })
  number.addEventListener("change", () => {
    const wanted = Math.round(+number.value)
    model.row = Number.isFinite(wanted) ? Math.min(facts.rows - 1, Math.max(0, wanted)) : model.row
    number.value = model.row
  })
  dark.addEventListener("change", () => { model.dark = dark.matches; paint(); show() })
  model.on("color", paint)
  model.on("shown", show)
  model.on("decoded", answer)
  model.dark = dark.matches
  // A finger on the map scrolls the page.
  if (window.matchMedia("(pointer: coarse)").matches) model.send_msg({touch: true})
  paint()
  show()
  answer()
  return page
}
