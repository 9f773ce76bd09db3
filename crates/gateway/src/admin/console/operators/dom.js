/**
 * How this page makes elements. What came from outside, be it a channel's name, a user's or a payload, reaches the page as text nodes and as
 * values of attributes that hold text: there is no other way in here.
 */

export const $ = (id) => document.getElementById(id);

/**
 * An element with these properties and children. `class` and names with a dash are attributes, `on…` are listeners, `data` is the
 * dataset; children that are no nodes become text, and those that are `null` or `false` are left out.
 */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (name === 'data') Object.assign(element.dataset, value);
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.flat().filter((it) => it !== null && it !== undefined && it !== false));
  return element;
}

/** Writes only what changed, so that screen readers are not told the same again and selections live on. */
export function write(element, text) {
  if (element.textContent !== String(text)) element.textContent = text;
}

/**
 * Makes the children of `parent` be those of `items`, in their order. Who stays is changed where it is, so focus, selection and the
 * pointer's place live on.
 */
export function sync(parent, items, keyOf, create, update) {
  const known = new Map([...parent.children].map((it) => [it.dataset.key, it]));
  let next = parent.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    let element = known.get(key);
    known.delete(key);
    if (!element) {
      element = create(item);
      element.dataset.key = key;
    }
    update(element, item);
    if (element === next) next = next.nextElementSibling;
    else parent.insertBefore(element, next);
  }
  for (const gone of known.values()) gone.remove();
}

/** A table with a caption for screen readers; `columns` are `[heading, class]`. Its body is filled by whoever asked for it. */
export function table(caption, columns) {
  const heads = columns.map(([heading, kind]) => make('th', { scope: 'col', class: kind }, heading));
  const body = make('tbody');
  const whole = make('div', { class: 'table', tabindex: '0', role: 'region', 'aria-label': `Table of ${caption.toLowerCase()}` },
    make('table', {}, make('caption', { class: 'unseen' }, caption), make('thead', {}, make('tr', {}, ...heads)), body));
  return { whole, body };
}

/** A row of as many cells as there are columns. */
export function row(columns) {
  return make('tr', {}, ...columns.map(([, kind], at) => make(at === 0 ? 'th' : 'td', at === 0 ? { scope: 'row', class: kind } : { class: kind })));
}

/** A link to another view of this page. */
export const link = (href, text, properties = {}) => make('a', { href, ...properties }, text);

/** A panel with a title. What comes first may be a `heading`: it shares the title's line. */
export function panel(title, first, ...content) {
  const id = `panel-${title.toLowerCase().replaceAll(/[^a-z]+/g, '-')}`;
  const name = make('h2', { id }, title);
  const top = first?.className === 'heading' ? [make('div', { class: 'top' }, name, first)] : [name, first];
  return make('section', { class: 'panel', 'aria-labelledby': id }, ...top, ...content);
}

/** Asks before something that cannot be undone; the answer is the value of the button that was pressed. */
export function confirm(title, text, choices) {
  const dialog = make('dialog', { 'aria-labelledby': 'dialog-title' });
  const buttons = choices.map(([value, label, kind]) => make('button', { type: 'button', class: kind, onclick: () => dialog.close(value) }, label));
  dialog.append(make('h2', { id: 'dialog-title' }, title), make('p', {}, text), make('div', { class: 'choices' }, ...buttons));
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener('close', () => {
    dialog.remove();
    resolve(dialog.returnValue);
  }));
}
